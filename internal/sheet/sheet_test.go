package sheet

import (
	"image"
	"image/color"
	"strings"
	"testing"
)

func dot(w, h int) image.Image {
	m := image.NewGray(image.Rect(3, 5, 3+w, 5+h))
	for i := range m.Pix {
		m.Pix[i] = 100
	}
	return m
}

func TestEachTileHasItsPlace(t *testing.T) {
	m := Draw([]Row{
		{Name: "first", Tiles: []Tile{{Picture: dot(28, 28)}, {Picture: dot(30, 600), Caption: "thin"}}},
		{Name: strings.Repeat("long", 100), Tiles: []Tile{{}, {Picture: dot(1000, 500)}, {Picture: dot(1, 1)}}},
	})
	left := gap + widest*letter + gap
	if want := image.Pt(left+3*(side+gap), gap+side+line+gap+side+gap); m.Rect.Size() != want {
		t.Fatalf("%v, want %v", m.Rect.Size(), want)
	}
	gray := color.RGBA{100, 100, 100, 255}
	for _, c := range []struct {
		row, column int
		full        bool
	}{{0, 0, true}, {0, 1, true}, {0, 2, false}, {1, 0, false}, {1, 1, true}, {1, 2, true}} {
		x, y := left+c.column*(side+gap)+side/2, gap+c.row*(side+line+gap)+side/2
		if got := m.RGBAAt(x, y); (got == gray) != c.full {
			t.Errorf("the middle of row %d, column %d is %v", c.row, c.column, got)
		}
	}
	ink := 0
	for x := range left {
		for y := range side {
			if m.RGBAAt(x, gap+y).R < 128 {
				ink++
			}
		}
	}
	if ink == 0 {
		t.Error("the first row has no name")
	}
	if empty := Draw(nil); empty.Rect.Empty() {
		t.Error("a sheet without rows has no pixel, which no PNG can hold")
	}
}
