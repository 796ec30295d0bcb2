package terminal

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// unsixel reads what a terminal would show, by DEC's manual. Pixels that nothing draws are transparent.
func unsixel(t *testing.T, text string) *image.RGBA {
	t.Helper()
	start := regexp.MustCompile(`^\x1bP0;1;0q"1;1;(\d+);(\d+)`).FindStringSubmatch(text)
	body, ended := strings.CutSuffix(text, "\x1b\\\n")
	if start == nil || !ended {
		t.Fatalf("no sixels: %.60q", text)
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	m := image.NewRGBA(image.Rect(0, 0, number(start[1]), number(start[2])))
	colors, now, x, y := map[int]color.RGBA{}, 0, 0, 0
	body = body[len(start[0]):]
	commands := regexp.MustCompile(`#(\d+)(?:;2;(\d+);(\d+);(\d+))?|(?:!(\d+))?([?-~])|\$|-`)
	rest := commands.ReplaceAllString(body, "")
	if rest != "" {
		t.Fatalf("no commands of sixels: %.60q", rest)
	}
	for _, c := range commands.FindAllStringSubmatch(body, -1) {
		switch {
		case c[0] == "$":
			x = 0
		case c[0] == "-":
			x, y = 0, y+6
		case c[1] != "":
			now = number(c[1])
			if c[2] != "" {
				part := func(s string) uint8 { return uint8((number(s)*255 + 50) / 100) }
				colors[now] = color.RGBA{part(c[2]), part(c[3]), part(c[4]), 255}
			}
		default:
			for range max(1, number(c[5])) {
				for bit := range 6 {
					if (c[6][0]-'?')>>bit&1 == 1 {
						m.SetRGBA(x, y+bit, colors[now])
					}
				}
				x++
			}
		}
	}
	return m
}

// A picture of few colors is shown as it is, to a terminal's percent; of many colors in close ones, dithered.
func TestSixelsAreThePicture(t *testing.T) {
	gray := image.NewGray(image.Rect(3, 4, 103, 69)) // begins elsewhere, and its height is no multiple of six
	for i := range gray.Pix {
		gray.Pix[i] = uint8(i * i / 7)
	}
	clear := image.NewNRGBA(image.Rect(0, 0, 9, 1)) // a terminal's ground is unknown: it is drawn on white
	for name, c := range map[string]struct {
		m      image.Image
		most   int // difference of a pixel
		colors int
	}{"one pixel": {gradient(1, 1), 2, 1}, "gray": {gray, 2, 256}, "transparent": {clear, 0, 1},
		"many colors": {gradient(64, 48), 90, 256}} {
		var out bytes.Buffer
		if err := Show(&out, c.m, Sixel, Size{80, 640}); err != nil {
			t.Fatal(err)
		}
		got, b := unsixel(t, out.String()), c.m.Bounds()
		if got.Rect != image.Rect(0, 0, b.Dx(), b.Dy()) {
			t.Fatalf("%s: %v", name, got.Rect)
		}
		var sum [3]int
		for y := range b.Dy() {
			for x := range b.Dx() {
				want := color.NRGBAModel.Convert(c.m.At(b.Min.X+x, b.Min.Y+y)).(color.NRGBA)
				if want.A == 0 {
					want = color.NRGBA{255, 255, 255, 255}
				}
				have := got.RGBAAt(x, y)
				less := func(a, b uint8) int { return int(a) - int(b) }
				for i, d := range []int{less(have.R, want.R), less(have.G, want.G), less(have.B, want.B)} {
					if sum[i] += d; max(d, -d) > c.most || have.A != 255 {
						t.Fatalf("%s: at %d,%d %v, want %v", name, x, y, have, want)
					}
				}
			}
		}
		for _, s := range sum {
			if s = max(s, -s) / (b.Dx() * b.Dy()); s > 2 {
				t.Errorf("%s: %d darker or lighter in the mean", name, s)
			}
		}
		if n := len(regexp.MustCompile(`#\d+;2;`).FindAllString(out.String(), -1)); n > c.colors {
			t.Errorf("%s: %d colors", name, n)
		}
	}
}

func TestPicturesFitTheTerminal(t *testing.T) {
	for _, width := range []int{100, 640, 641, 2000} {
		var out bytes.Buffer
		if err := Show(&out, gradient(width, 10), Sixel, Size{80, 640}); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("\"1;1;%d;%d#", min(width, 640), 10*min(width, 640)/width)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%d pixels: %.40q, want %q", width, out.String(), want)
		}
	}
}
