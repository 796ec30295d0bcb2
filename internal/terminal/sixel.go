package terminal

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/color/palette"
	"image/draw"
)

const (
	sixelColors = 256 // registers that terminals have
	band        = 6   // rows of pixels that are sent together
)

// sixel sends six rows of pixels at a time, each color of them for itself:
// https://vt100.net/docs/vt3xx-gp/chapter14.html.
func sixel(out *bytes.Buffer, m image.Image) {
	p := indexed(m)
	w, h := p.Rect.Dx(), p.Rect.Dy()
	fmt.Fprintf(out, "\x1bP0;1;0q\"1;1;%d;%d", w, h)
	for i, c := range p.Palette {
		r, g, b, _ := c.RGBA()
		fmt.Fprintf(out, "#%d;2;%d;%d;%d", i, percent(r), percent(g), percent(b))
	}
	line := make([]byte, w)
	for top := 0; top < h; top += band {
		rows := p.Pix[top*p.Stride : min(top+band, h)*p.Stride]
		var there [sixelColors]bool
		for _, c := range rows {
			there[c] = true
		}
		for c := range p.Palette {
			if !there[c] {
				continue
			}
			clear(line)
			for i, at := range rows {
				if int(at) == c {
					line[i%p.Stride] |= 1 << (i / p.Stride)
				}
			}
			fmt.Fprintf(out, "#%d", c)
			repeat(out, line)
			out.WriteByte('$')
		}
		out.WriteByte('-')
	}
	out.WriteString("\x1b\\\n")
}

// repeat writes the bits of each column as a letter, and a run of equal ones as its length and the letter.
func repeat(out *bytes.Buffer, line []byte) {
	for i := 0; i < len(line); {
		n := 1
		for i+n < len(line) && line[i+n] == line[i] {
			n++
		}
		if letter := '?' + line[i]; n > 3 {
			fmt.Fprintf(out, "!%d%c", n, letter)
		} else {
			out.Write(bytes.Repeat([]byte{letter}, n))
		}
		i += n
	}
}

func percent(c uint32) uint32 { return (c*100 + 0x7fff) / 0xffff }

// indexed is a picture on white with a palette: its own colors if they are few enough, otherwise close ones, dithered.
func indexed(m image.Image) *image.Paletted {
	b := m.Bounds()
	full := image.NewRGBA(image.Rect(0, 0, b.Dx(), b.Dy()))
	draw.Draw(full, full.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(full, full.Rect, m, b.Min, draw.Over)
	var own color.Palette
	index := map[color.RGBA]uint8{}
	p := image.NewPaletted(full.Rect, nil)
	for i := range p.Pix {
		c := color.RGBA{full.Pix[4*i], full.Pix[4*i+1], full.Pix[4*i+2], full.Pix[4*i+3]}
		at, ok := index[c]
		if !ok {
			if len(own) == sixelColors {
				p.Palette = palette.Plan9
				draw.FloydSteinberg.Draw(p, p.Rect, full, image.Point{})
				return p
			}
			at = uint8(len(own))
			index[c], own = at, append(own, c)
		}
		p.Pix[i] = at
	}
	p.Palette = own
	return p
}
