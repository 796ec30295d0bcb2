package evaluate

import (
	"bytes"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"strings"
	"testing"

	"evenweave/internal/picture"
)

// shoe is a light slope on black with a margin, w x h in a picture of side x side.
func shoe(side, w, h int) *image.Gray {
	g := image.NewGray(image.Rect(0, 0, side, side))
	for y := range h {
		for x := range w {
			g.SetGray((side-w)/2+x, (side-h)/2+y, color.Gray{uint8(100 + 150*x/w)})
		}
	}
	return g
}

func negative(g *image.Gray) *image.Gray {
	out := image.NewGray(g.Rect)
	for i, v := range g.Pix {
		out.Pix[i] = 255 - v
	}
	return out
}

func asPNG(t testing.TB, m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(t *testing.T, file []byte) []byte {
	t.Helper()
	pixels, err := Decode(t.Context(), bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if len(pixels) != ImageSide*ImageSide {
		t.Fatalf("%d pixels", len(pixels))
	}
	return pixels
}

// near reports whether no pixel differs by more than tolerance.
func near(a, b []byte, tolerance int) bool {
	for i := range a {
		if d := int(a[i]) - int(b[i]); d > tolerance || -d > tolerance {
			return false
		}
	}
	return len(a) == len(b)
}

func TestAPictureOfTheSetIsUnchanged(t *testing.T) {
	want := shoe(ImageSide, 20, 16)
	if !bytes.Equal(decode(t, asPNG(t, want)), want.Pix) {
		t.Error("changed")
	}
	if !bytes.Equal(decode(t, asPNG(t, negative(want))), want.Pix) {
		t.Error("its negative is not inverted back")
	}
}

func TestPhotographsBecomeLikeTheSet(t *testing.T) {
	want := decode(t, asPNG(t, shoe(400, 280, 140)))
	if want[0] != 0 || want[14*ImageSide] == 0 || want[14*ImageSide+27] < 200 || want[6*ImageSide+14] != 0 {
		t.Fatalf("not trimmed, scaled and centred: % x", want)
	}
	clear := image.NewNRGBA(image.Rect(-7, 3, 393, 403)) // transparent around the object, and not at the origin
	dark := negative(shoe(400, 280, 140))
	for y := range 400 {
		for x := range 400 {
			if v := dark.GrayAt(x, y).Y; v < 255 {
				clear.Set(x-7, y+3, color.Gray{v})
			}
		}
	}
	var asJPEG, asGIF bytes.Buffer
	if err := errors.Join(jpeg.Encode(&asJPEG, dark, &jpeg.Options{Quality: 95}),
		gif.Encode(&asGIF, dark, nil)); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		file      []byte
		tolerance int
	}{
		"on white": {asPNG(t, dark), 0}, "transparent": {asPNG(t, clear), 1},
		"larger": {asPNG(t, shoe(800, 560, 280)), 8},
		"JPEG":   {asJPEG.Bytes(), 40}, "GIF": {asGIF.Bytes(), 40}, // the edges shift a little
	} {
		if got := decode(t, test.file); !near(got, want, test.tolerance) {
			t.Errorf("%s differs: % x", name, got)
		}
	}
	for _, m := range []image.Image{shoe(1, 0, 0), shoe(500, 0, 0), shoe(3, 1, 1),
		image.NewGray(image.Rect(0, 0, 9000, 1))} {
		decode(t, asPNG(t, m)) // empty and extreme pictures must not fail
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := asPNG(t, shoe(40, 20, 20))
	huge := bytes.Clone(whole) // the header claims a huge size
	copy(huge[16:24], []byte{0, 0, 0x40, 0, 0, 0, 0x40, 0})
	for name, file := range map[string]io.Reader{
		"nothing": strings.NewReader(""), "text": strings.NewReader("hello"),
		"half":  bytes.NewReader(whole[:len(whole)/2]),
		"claim": bytes.NewReader(huge), "endless": endless{}, "failing": failing{},
	} {
		if pixels, err := Decode(t.Context(), file); err == nil {
			t.Errorf("%s gave %d pixels", name, len(pixels))
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

func FuzzDecode(f *testing.F) {
	f.Add(asPNG(f, shoe(40, 20, 20)))
	var asJPEG, asGIF bytes.Buffer
	if err := errors.Join(jpeg.Encode(&asJPEG, shoe(9, 4, 4), nil),
		gif.Encode(&asGIF, shoe(9, 4, 4), nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(asJPEG.Bytes())
	f.Add(asGIF.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		if w, h, err := picture.Size(file); err == nil && w*h > 1<<16 {
			t.Skip("takes seconds")
		}
		if pixels, err := Decode(t.Context(), bytes.NewReader(file)); err == nil && len(pixels) != ImageSide*ImageSide {
			t.Errorf("%d pixels", len(pixels))
		}
	})
}
