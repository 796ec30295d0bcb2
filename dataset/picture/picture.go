// Package picture decodes pictures that others may have made: few formats, within bounds of size, memory and time.
package picture

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

	"golang.org/x/image/webp"
)

// MaxBytes is the length of the longest file that Decode takes.
const MaxBytes = 64 << 20

const (
	maxSide       = 1 << 15
	maxPixels     = 128 << 20 // cameras have 12 to 108 million
	maxMemory     = 512 << 20 // bytes while decoded: of 128 Mi pixels a camera's JPEG takes less than half of it
	maxDecodeTime = 20 * time.Second
	decodeStep    = 64 // bytes that a decoder gets at a time: a few make a progressive JPEG work on all pixels
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
		{"WebP", "RIFF????WEBP", webp.DecodeConfig, decodeWebP},
		{name: "TIFF", magic: "II*\x00"},
		{name: "TIFF", magic: "MM\x00*"},
		{name: "TIFF", magic: "II+\x00"},
		{name: "TIFF", magic: "MM\x00+"},
		{name: "BMP", magic: "BM"},
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

// Decode decodes a PNG, a JPEG, a WebP without animation, or the first frame of a GIF, as its pixels are stored: see
// Orientation. It takes memory for the pixels that the header announces. Files over 64 MiB, pictures over 128 Mi pixels
// or 32768 a side, and those that would take over 512 MiB while they are decoded are refused first: a camera's JPEG
// takes 1.5 to 3 bytes a pixel, a progressive one up to 15, a PNG up to 8. Decoding ends with ctx, and after 20 s.
func Decode(ctx context.Context, data []byte) (image.Image, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxDecodeTime,
		fmt.Errorf("decoding takes over %s: save the picture again, as a plain PNG or JPEG", maxDecodeTime))
	defer cancel()
	return decode(ctx, data)
}

func decode(ctx context.Context, data []byte) (image.Image, error) {
	f, w, h, err := header(data)
	if err != nil {
		return nil, err
	}
	picture, err := f.decode(&deadlineReader{ctx, bytes.NewReader(data)})
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("damaged %s image: %w", f.name, err)
	}
	if b := picture.Bounds(); b.Empty() || b.Dx() > w || b.Dy() > h {
		return nil, fmt.Errorf("the %s image has %d x %d pixels where its header announces %d x %d", f.name, b.Dx(),
			b.Dy(), w, h)
	}
	return picture, nil
}

// Format returns the name of the format that the first bytes show, "" for one that is not known.
func Format(data []byte) string {
	for _, f := range formats() {
		if f.matches(data) {
			return f.name
		}
	}
	return ""
}

// Size returns the width and height that the header announces, if Decode would take them.
func Size(data []byte) (width, height int, err error) {
	_, width, height, err = header(data)
	return width, height, err
}

func header(data []byte) (f format, w, h int, err error) {
	if len(data) > MaxBytes {
		return f, 0, 0, fmt.Errorf("the image file has over %d MiB; scale the image down", MaxBytes>>20)
	}
	all := formats()
	i := slices.IndexFunc(all, func(f format) bool { return f.matches(data) })
	if i < 0 {
		return f, 0, 0, errors.New("not a PNG, JPEG, GIF or WebP image")
	}
	if f = all[i]; f.decode == nil {
		return f, 0, 0, fmt.Errorf("a %s image is not read: convert it to PNG, JPEG, GIF or WebP", f.name)
	}
	if f.name == "WebP" && len(data) > 20 && string(data[12:16]) == "VP8X" && data[20]&2 != 0 {
		return f, 0, 0, errors.New("an animated WebP image is not read: save its first frame as PNG")
	}
	config, err := f.config(bytes.NewReader(data))
	if err != nil {
		return f, 0, 0, fmt.Errorf("damaged %s image: %w", f.name, err)
	}
	if w, h = config.Width, config.Height; w <= 0 || h <= 0 || w > maxSide || h > maxSide || w*h > maxPixels {
		return f, w, h,
			fmt.Errorf("the %s image has %d x %d pixels, expected at most %d in all and %d a side; scale it down",
				f.name, w, h, maxPixels, maxSide)
	}
	if each := bytesOfPixel(f.name, config.ColorModel, data); w*h > maxMemory/each {
		return f, w, h, fmt.Errorf("the %s image has %d x %d pixels, of which each takes up to %d bytes while it is "+
			"decoded, expected at most %d MiB in all; scale it down, or save it as a plain JPEG", f.name, w, h, each,
			maxMemory>>20)
	}
	return f, w, h, nil
}

// bytesOfPixel is how much memory a pixel takes at most while it is decoded. A progressive JPEG is collected as
// coefficients of four bytes beside its pixels.
func bytesOfPixel(format string, model color.Model, data []byte) int {
	channels, progressive := jpegFrame(data)
	switch {
	case format == "JPEG" && progressive:
		return 5 * channels
	case format == "JPEG":
		return channels
	case model == color.RGBA64Model, model == color.NRGBA64Model:
		return 8
	}
	return 4
}

// jpegFrame reads how many channels a JPEG has, and whether it is progressive; of what is no JPEG it returns 4, true.
func jpegFrame(data []byte) (channels int, progressive bool) {
	for data = data[min(2, len(data)):]; len(data) >= 10 && data[0] == 0xff; {
		marker, length := data[1], int(data[2])<<8|int(data[3])
		switch {
		case marker == 0xff: // padding
			data = data[1:]
			continue
		case marker >= 0xc0 && marker <= 0xc2: // SOF0 to SOF2: those that are decoded
			return max(1, min(4, int(data[9]))), marker == 0xc2
		case length < 2 || 2+length > len(data):
			return 4, true
		}
		data = data[2+length:]
	}
	return 4, true
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
