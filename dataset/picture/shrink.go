package picture

import (
	"image"
	"image/draw"
)

// maxWhole is the most pixels that are scaled in one go, which takes more memory than they do.
const maxWhole = 16 << 20

// Shrunk is a picture of at most 16 Mi pixels: a larger one is divided into squares, of which each becomes a pixel, the
// mean of it; what is left over at the right and the lower edge is cut off. It takes memory for one row of squares.
func Shrunk(m image.Image) image.Image {
	b, k := m.Bounds(), 1
	for b.Dx()/k*(b.Dy()/k) > maxWhole {
		k++
	}
	if k == 1 {
		return m
	}
	w, h := max(1, b.Dx()/k), max(1, b.Dy()/k)
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	strip := image.NewRGBA(image.Rect(0, 0, b.Dx(), k))
	for y := range h {
		draw.Draw(strip, strip.Rect, m, image.Pt(b.Min.X, b.Min.Y+y*k), draw.Src)
		for x := range w {
			var sums [4]int
			for dy := range k {
				for at := dy*strip.Stride + 4*x*k; at < dy*strip.Stride+4*(x+1)*k; at++ {
					sums[at%4] += int(strip.Pix[at])
				}
			}
			for c, sum := range sums {
				out.Pix[y*out.Stride+4*x+c] = uint8((sum + k*k/2) / (k * k))
			}
		}
	}
	return out
}
