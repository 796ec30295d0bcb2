package evaluate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"slices"
	"time"

	"golang.org/x/image/draw"
)

// ImageSide is the width and height of the images that Decode returns.
const ImageSide = 28

const (
	maxImageBytes = 64 << 20
	maxImageSide  = 1 << 14
	maxPixels     = 16 << 20 // 256 MB while decoded, at worst: the coefficients of a progressive JPEG
	maxDecodeTime = 5 * time.Second
	decodeStep    = 64 // bytes that a decoder gets at a time: a few make a progressive JPEG work on all pixels
	trimTolerance = 13 // 5% of white: closer than this to the background counts as background
)

// A format is recognised by its first bytes; this package chooses its decoder. image.Decode would use all that imported
// packages register: a library for plots brings TIFF, whose tiles take memory that the header does not announce.
type format struct {
	name   string
	magic  string // '?' is any byte
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error) // nil: known, but not decoded
}

func formats() []format {
	return []format{
		{"PNG", "\x89PNG\r\n\x1a\n", png.DecodeConfig, png.Decode},
		{"JPEG", "\xff\xd8\xff", jpeg.DecodeConfig, jpeg.Decode},
		{"GIF", "GIF8?a", gif.DecodeConfig, gif.Decode},
		{name: "TIFF", magic: "II*\x00"},
		{name: "TIFF", magic: "MM\x00*"},
		{name: "TIFF", magic: "II+\x00"},
		{name: "TIFF", magic: "MM\x00+"},
		{name: "BMP", magic: "BM"},
		{name: "WebP", magic: "RIFF????WEBP"},
		{name: "HEIF or AVIF", magic: "????ftyp"},
	}
}

func (f format) matches(data []byte) bool {
	if len(data) < len(f.magic) {
		return false
	}
	for i := range len(f.magic) {
		if f.magic[i] != '?' && f.magic[i] != data[i] {
			return false
		}
	}
	return true
}

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
	data, err := io.ReadAll(io.LimitReader(r, maxImageBytes+1))
	if err != nil {
		return nil, fmt.Errorf("evaluate: read image: %w", err)
	}
	if len(data) > maxImageBytes {
		return nil, fmt.Errorf("evaluate: the image file has over %d MiB; scale the image down", maxImageBytes>>20)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, maxDecodeTime,
		fmt.Errorf("decoding takes over %s: save the picture again, as a plain PNG or JPEG", maxDecodeTime))
	defer cancel()
	picture, err := decodePicture(ctx, data)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	return normalize(picture), nil
}

// decodePicture takes memory for the pixels that the header announces; the limits bound their number.
func decodePicture(ctx context.Context, data []byte) (image.Image, error) {
	all := formats()
	i := slices.IndexFunc(all, func(f format) bool { return f.matches(data) })
	if i < 0 {
		return nil, errors.New("not a PNG, JPEG or GIF image")
	}
	f := all[i]
	if f.decode == nil {
		return nil, fmt.Errorf("a %s image is not read: convert it to PNG, JPEG or GIF", f.name)
	}
	config, err := f.config(&deadlineReader{ctx, bytes.NewReader(data)})
	if err != nil {
		return nil, fmt.Errorf("damaged %s image: %w", f.name, err)
	}
	w, h := config.Width, config.Height
	if w <= 0 || h <= 0 || w > maxImageSide || h > maxImageSide || w*h > maxPixels {
		return nil, fmt.Errorf("the %s image has %d x %d pixels, expected at most %d in all and %d a side; scale it "+
			"down",
			f.name, w, h, maxPixels, maxImageSide)
	}
	picture, err := f.decode(&deadlineReader{ctx, bytes.NewReader(data)})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged %s image: %w", f.name, err)
	}
	if b := picture.Bounds(); b.Empty() || b.Dx() > w || b.Dy() > h {
		return nil, fmt.Errorf("the %s image has %d x %d pixels where its header announces %d x %d",
			f.name, b.Dx(), b.Dy(), w, h)
	}
	return picture, nil
}

// deadlineReader ends a decoder's work with a context.
type deadlineReader struct {
	ctx context.Context
	r   io.Reader
}

func (d *deadlineReader) Read(b []byte) (int, error) {
	if d.ctx.Err() != nil {
		return 0, context.Cause(d.ctx)
	}
	return d.r.Read(b[:min(len(b), decodeStep)])
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
