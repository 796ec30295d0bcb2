package evaluate

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
	"slices"

	"golang.org/x/image/draw"

	"evenweave/internal/picture"
)

// ImageSide is the width and height of the images that Decode returns.
const ImageSide = 28

const trimTolerance = 13 // 5% of white: closer than this to the background counts as background

// Decode reads a PNG, JPEG or GIF (its first frame) and brings it into the form of Fashion-MNIST: ImageSide x ImageSide
// gray bytes, row by row, a bright object on black. It follows the steps by which that set was made:
//
//   - transparent pixels become white, and colors become gray;
//   - the background is the median of the four corners; where it is light (over
//     127) the picture is inverted;
//   - a picture of exactly ImageSide x ImageSide pixels is then done; any other is
//     trimmed of edges within 5% of the background, scaled until its longer side
//     fits, and centred on black.
//
// So a picture of the set itself comes out unchanged. Files over 64 MiB and pictures over 16 Mi pixels or 16384 a side
// are refused before decoding. Decoding ends with ctx, and after 5 s.
func Decode(ctx context.Context, r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, picture.MaxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("evaluate: read image: %w", err)
	}
	decoded, err := picture.Decode(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return normalize(decoded), nil
}

func normalize(picture image.Image) []byte {
	gray := grayOnWhite(picture)
	background := corners(gray)
	if background > 127 {
		for i, v := range gray.Pix {
			gray.Pix[i] = 255 - v
		}
		background = 255 - background
	}
	bounds := gray.Bounds()
	if bounds.Dx() == ImageSide && bounds.Dy() == ImageSide {
		return gray.Pix
	}
	content := trim(gray, background)
	longer := max(content.Dx(), content.Dy())
	w := max(1, (content.Dx()*ImageSide+longer/2)/longer)
	h := max(1, (content.Dy()*ImageSide+longer/2)/longer)
	out := image.NewGray(image.Rect(0, 0, ImageSide, ImageSide))
	corner := image.Pt((ImageSide-w)/2, (ImageSide-h)/2)
	draw.CatmullRom.Scale(out, image.Rectangle{corner, corner.Add(image.Pt(w, h))}, gray, content, draw.Src, nil)
	return out.Pix
}

// grayOnWhite is the picture without color or transparency, at the origin. Its stride is its width.
func grayOnWhite(picture image.Image) *image.Gray {
	bounds := picture.Bounds()
	gray := image.NewGray(image.Rect(0, 0, bounds.Dx(), bounds.Dy()))
	draw.Draw(gray, gray.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.Draw(gray, gray.Bounds(), picture, bounds.Min, draw.Over)
	return gray
}

// corners is the median of the four corners, the lower of the middle two.
func corners(g *image.Gray) uint8 {
	right, bottom := g.Rect.Dx()-1, g.Rect.Dy()-1
	four := []uint8{g.GrayAt(0, 0).Y, g.GrayAt(right, 0).Y, g.GrayAt(0, bottom).Y, g.GrayAt(right, bottom).Y}
	slices.Sort(four)
	return four[1]
}

// trim is the smallest part that holds all pixels that differ from the background; the whole if none does.
func trim(g *image.Gray, background uint8) image.Rectangle {
	var content image.Rectangle
	for y := range g.Rect.Dy() {
		row := g.Pix[y*g.Stride:][:g.Rect.Dx()]
		differs := func(v uint8) bool { return max(v, background)-min(v, background) > trimTolerance }
		first := slices.IndexFunc(row, differs)
		if first < 0 {
			continue
		}
		last := len(row) - 1
		for !differs(row[last]) {
			last--
		}
		content = content.Union(image.Rect(first, y, last+1, y+1))
	}
	if content.Empty() {
		return g.Rect
	}
	return content
}
