package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// point is a place in pixels from the upper left corner, or a value over the horizontal axis.
type point struct{ x, y float64 }

// stroke is how a line is drawn.
type stroke struct {
	color  color.NRGBA
	width  float64
	dashed bool
}

// anchor is the part of a text that stands at its place.
type anchor int

const (
	start anchor = iota
	middle
	end
)

// canvas is what a chart is drawn on.
type canvas interface {
	line(points []point, s stroke)
	dot(at point, radius float64, c color.NRGBA)
	text(at point, a anchor, size float64, text string) // at its base line
	writeTo(w io.Writer) error
}

var ink = color.NRGBA{0x20, 0x20, 0x20, 0xff}

// svg is a canvas that becomes text.
type svg struct{ bytes.Buffer }

func newSVG(width, height int) *svg {
	s := &svg{}
	fmt.Fprintf(s, "<?xml version=\"1.0\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "+
		"font-family=\"sans-serif\">\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n", width, height)
	return s
}

func hex(c color.NRGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (s *svg) line(points []point, k stroke) {
	fmt.Fprintf(s, "<polyline fill=\"none\" stroke=\"%s\" stroke-opacity=\"%.2f\" stroke-width=\"%g\"", hex(k.color),
		float64(k.color.A)/255, k.width)
	if k.dashed {
		s.WriteString(" stroke-dasharray=\"3 3\"")
	}
	s.WriteString(" points=\"")
	for _, p := range points {
		fmt.Fprintf(s, "%.1f,%.1f ", p.x, p.y)
	}
	s.WriteString("\"/>\n")
}

func (s *svg) dot(at point, radius float64, c color.NRGBA) {
	fmt.Fprintf(s, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"%s\"/>\n", at.x, at.y, radius, hex(c))
}

func (s *svg) text(at point, a anchor, size float64, text string) {
	fmt.Fprintf(s, "<text x=\"%.1f\" y=\"%.1f\" font-size=\"%g\" fill=\"%s\" text-anchor=\"%s\">", at.x, at.y, size,
		hex(ink), []string{"start", "middle", "end"}[a])
	_ = xml.EscapeText(s, []byte(text)) // a buffer takes all
	s.WriteString("</text>\n")
}

func (s *svg) writeTo(w io.Writer) error {
	_, err := w.Write(append(s.Bytes(), "</svg>\n"...))
	return err
}

// raster is a canvas of pixels.
type raster struct {
	image *image.RGBA
	font  *opentype.Font
}

func newRaster(width, height int) (*raster, error) {
	letters, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, err
	}
	r := &raster{image: image.NewRGBA(image.Rect(0, 0, width, height)), font: letters}
	draw.Draw(r.image, r.image.Rect, image.White, image.Point{}, draw.Src)
	return r, nil
}

// fill colors the union of polygons, which turn the same way: where they overlap, a color is applied once.
func (r *raster) fill(c color.NRGBA, polygons ...[]point) {
	low, high := point{math.Inf(1), math.Inf(1)}, point{}
	for _, corners := range polygons {
		for _, p := range corners {
			low = point{min(low.x, p.x), min(low.y, p.y)}
			high = point{max(high.x, p.x), max(high.y, p.y)}
		}
	}
	part := image.Rect(int(low.x), int(low.y), int(high.x)+1, int(high.y)+1).Intersect(r.image.Rect)
	if len(polygons) == 0 || part.Empty() {
		return
	}
	z := vector.NewRasterizer(part.Dx(), part.Dy())
	at := func(p point) (x, y float32) {
		return float32(p.x) - float32(part.Min.X), float32(p.y) - float32(part.Min.Y)
	}
	for _, corners := range polygons {
		z.MoveTo(at(corners[0]))
		for _, p := range corners[1:] {
			z.LineTo(at(p))
		}
		z.ClosePath()
	}
	z.Draw(r.image, part, image.NewUniform(c), image.Point{})
}

func (r *raster) line(points []point, k stroke) {
	var quads [][]point
	for i := range len(points) - 1 {
		for _, part := range k.parts(points[i], points[i+1]) {
			if part[0] != part[1] {
				quads = append(quads, quad(part[0], part[1], k.width))
			}
		}
	}
	r.fill(k.color, quads...)
}

// quad is a straight line as an area. It is a little longer than the line: two overlap where a line turns.
func quad(a, b point, width float64) []point {
	length := math.Hypot(b.x-a.x, b.y-a.y)
	dx, dy := (b.x-a.x)/length*width/2, (b.y-a.y)/length*width/2
	a, b = point{a.x - dx/2, a.y - dy/2}, point{b.x + dx/2, b.y + dy/2}
	return []point{{a.x - dy, a.y + dx}, {b.x - dy, b.y + dx}, {b.x + dy, b.y - dx}, {a.x + dy, a.y - dx}}
}

// parts are what is drawn of a straight line: all of it, or 3 pixels of 6.
func (k stroke) parts(a, b point) (all [][2]point) {
	if !k.dashed {
		return [][2]point{{a, b}}
	}
	length := math.Hypot(b.x-a.x, b.y-a.y)
	at := func(d float64) point {
		share := min(d/length, 1)
		return point{a.x + (b.x-a.x)*share, a.y + (b.y-a.y)*share}
	}
	for d := 0.0; d < length; d += 6 {
		all = append(all, [2]point{at(d), at(d + 3)})
	}
	return all
}

func (r *raster) dot(at point, radius float64, c color.NRGBA) {
	const corners = 16
	circle := make([]point, corners)
	for i := range circle {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		circle[i] = point{at.x + radius*cos, at.y + radius*sin}
	}
	r.fill(c, circle)
}

func (r *raster) text(at point, a anchor, size float64, text string) {
	face, err := opentype.NewFace(r.font, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		return // it fails for sizes that are not above 0 alone
	}
	d := font.Drawer{Dst: r.image, Src: image.NewUniform(ink), Face: face}
	d.Dot = fixed.Point26_6{X: fixed.Int26_6(at.x*64) - d.MeasureString(text)*fixed.Int26_6(a)/2,
		Y: fixed.Int26_6(at.y * 64)}
	d.DrawString(text)
}

func (r *raster) writeTo(w io.Writer) error { return png.Encode(w, r.image) }
