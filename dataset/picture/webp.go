package picture

import (
	"image"
	"io"
	"math"

	"golang.org/x/image/webp"
)

// decodeWebP decodes a WebP. Its lossy form keeps black as 16 and white as 235 (ITU-R BT.601), where a JPEG has 0 and
// 255: the library hands its values on as if they were those of a JPEG.
func decodeWebP(r io.Reader) (image.Image, error) {
	m, err := webp.Decode(r)
	switch m := m.(type) {
	case *image.YCbCr:
		fullRange(m)
	case *image.NYCbCrA:
		fullRange(&m.YCbCr)
	}
	return m, err
}

// fullRange stretches a picture's values to those of a JPEG.
func fullRange(m *image.YCbCr) {
	stretch := func(values []uint8, zero, scale, to float64) {
		var full [256]uint8
		for v := range full {
			full[v] = uint8(min(max(math.Round((float64(v)-zero)*255/scale+to), 0), 255))
		}
		for i, v := range values {
			values[i] = full[v]
		}
	}
	stretch(m.Y, 16, 235-16, 0)
	stretch(m.Cb, 128, 240-16, 128)
	stretch(m.Cr, 128, 240-16, 128)
}
