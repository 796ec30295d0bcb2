// Package sheet draws pictures side by side, in rows with names: what a data set holds, what a model got wrong.
package sheet

import (
	"image"
	"image/color"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// Tile is a picture with what is written below it, which may be empty.
type Tile struct {
	Picture image.Image
	Caption string
}

// Row is a row of tiles with what is written before it.
type Row struct {
	Name  string
	Tiles []Tile
	// Full keeps the size of pictures, up to 256 pixels a side: they are charts.
	Full bool
}

const (
	side   = 84 // of a tile; pictures are enlarged by whole numbers where they are smaller
	gap    = 4
	line   = 15 // height of a line of text
	letter = 7  // width of a letter
	widest = 24 // letters of a name
	long   = 200
	chart  = 256
)

// Draw draws rows below each other, dark on light. Texts are cut to the places that they have; only ASCII has letters.
func Draw(rows []Row) *image.RGBA {
	name, width := 0, 0
	for _, r := range rows[:min(len(rows), long)] {
		name = max(name, min(len(r.Name), widest))
		width = max(width, min(len(r.Tiles), long)*(r.side()+gap))
	}
	left := gap
	if name > 0 {
		left += name*letter + gap
	}
	height := gap
	for _, r := range rows[:min(len(rows), long)] {
		height += r.height()
	}
	sheet := image.NewRGBA(image.Rect(0, 0, left+width, max(height, 1)))
	draw.Draw(sheet, sheet.Rect, image.White, image.Point{}, draw.Src)
	y := gap
	for _, r := range rows[:min(len(rows), long)] {
		write(sheet, gap, y+r.side()/2+4, r.Name, widest)
		for i, t := range r.Tiles[:min(len(r.Tiles), long)] {
			x := left + i*(r.side()+gap)
			place(sheet, x, y, r.side(), t.Picture)
			write(sheet, x, y+r.side()+line-3, t.Caption, r.side()/letter)
		}
		y += r.height()
	}
	return sheet
}

// side is that of the row's tiles.
func (r Row) side() int {
	if r.Full {
		return chart
	}
	return side
}

func (r Row) height() int {
	for _, t := range r.Tiles {
		if t.Caption != "" {
			return r.side() + line + gap
		}
	}
	return r.side() + gap
}

// place fits a picture into the tile at x, y.
func place(sheet *image.RGBA, x, y, side int, m image.Image) {
	if m == nil || m.Bounds().Empty() {
		return
	}
	b := m.Bounds()
	longer := max(b.Dx(), b.Dy())
	w, h := max(1, b.Dx()*side/longer), max(1, b.Dy()*side/longer)
	var scale draw.Scaler = draw.ApproxBiLinear
	if times := side / longer; times > 0 {
		w, h, scale = b.Dx()*times, b.Dy()*times, draw.NearestNeighbor
	}
	corner := image.Pt(x+(side-w)/2, y+(side-h)/2)
	scale.Scale(sheet, image.Rectangle{Min: corner, Max: corner.Add(image.Pt(w, h))}, m, b, draw.Over, nil)
}

// write writes at most so many letters with their base line at y.
func write(sheet *image.RGBA, x, y int, text string, most int) {
	letters := []rune(text)
	if len(letters) > most {
		letters = append(letters[:most-1:most-1], '~')
	}
	d := font.Drawer{Dst: sheet, Src: image.NewUniform(color.Gray{30}), Face: basicfont.Face7x13,
		Dot: fixed.P(x, y)}
	d.DrawString(string(letters))
}
