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
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/dataset/picture"
)

// boot is a dark ankle boot on white paper, 120 x 90: its shaft gets brighter to the right, its foot to the lower
// right.
func boot() *image.Gray {
	g := image.NewGray(image.Rect(0, 0, 120, 90))
	for y := range 90 {
		for x := range 120 {
			v := uint8(255)
			switch {
			case x >= 20 && x < 105 && y >= 55 && y < 80:
				v = uint8(30 + x/2 + y/2)
			case x >= 20 && x < 55 && y >= 10 && y < 80:
				v = uint8(60 + x)
			}
			g.SetGray(x, y, color.Gray{v})
		}
	}
	return g
}

// on is the boot, perhaps as a negative, with its background painted.
func on(negative bool, paint func(x, y int) color.Color) image.Image {
	from := boot()
	m := image.NewNRGBA64(from.Rect)
	for y := range 90 {
		for x := range 120 {
			v := from.GrayAt(x, y).Y
			switch {
			case v == 255:
				m.Set(x, y, paint(x, y))
			case negative:
				m.Set(x, y, color.Gray{255 - v})
			default:
				m.Set(x, y, color.Gray{v})
			}
		}
	}
	return m
}

func plain(c color.Color) func(x, y int) color.Color { return func(int, int) color.Color { return c } }

func asPNG(t testing.TB, m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func decode(t *testing.T, file []byte) Reading {
	t.Helper()
	r, err := Decode(t.Context(), bytes.NewReader(file), Auto)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Pixels) != ImageSide*ImageSide {
		t.Fatalf("%d pixels", len(r.Pixels))
	}
	return r
}

// apart is the mean difference of pixels.
func apart(a, b []byte) float64 {
	sum := 0
	for i := range a {
		sum += max(int(a[i])-int(b[i]), int(b[i])-int(a[i]))
	}
	return float64(sum) / float64(len(a))
}

func TestAPictureOfTheSetIsUnchanged(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		want, negative := image.NewGray(image.Rect(0, 0, ImageSide, ImageSide)),
			image.NewGray(image.Rect(0, 0, ImageSide,
				ImageSide))
		for i := range want.Pix { // any pixels, but on black in two corners at least
			want.Pix[i] = uint8(random.IntN(256))
		}
		want.Pix[ImageSide-1], want.Pix[len(want.Pix)-ImageSide] = uint8(14+random.IntN(200)),
			uint8(14+random.IntN(200))
		want.Pix[0], want.Pix[len(want.Pix)-1] = 0, 0
		for i, v := range want.Pix {
			negative.Pix[i] = 255 - v
		}
		if r := decode(t, asPNG(t, want)); !bytes.Equal(r.Pixels, want.Pix) || r.Polarity != LightOnDark {
			t.Fatalf("changed: %s", r)
		}
		if r := decode(t, asPNG(t, negative)); !bytes.Equal(r.Pixels, want.Pix) || r.Polarity != DarkOnLight {
			t.Fatalf("its negative is not inverted back: %s", r)
		}
	}
}

// TestOneObjectIsReadAlike: whatever is behind it, and whatever the file's format.
func TestOneObjectIsReadAlike(t *testing.T) {
	paper := decode(t, asPNG(t, boot()))
	if p := paper.Pixels; paper.Cut != [4]int{20, 10, 105, 80} || p[0] != 0 || p[14*ImageSide+2] == 0 ||
		p[24*ImageSide+2] < 150 || p[8*ImageSide+20] != 0 {
		t.Fatalf("the boot is not cut out, scaled and centred: %s: % x", paper, p)
	}
	random := rand.New(rand.NewPCG(2, 3))
	uneven := func(r, g, b, by int) func(x, y int) color.Color {
		return func(_, y int) color.Color {
			n := random.IntN(by) + y%7 // grain, and planks
			return color.RGBA{uint8(r + n), uint8(g + n), uint8(b + n), 255}
		}
	}
	type test struct {
		name     string
		file     []byte
		polarity Polarity
		most     float64
	}
	var tests []test
	for _, gray := range []uint8{254, 240, 220, 200, 185} {
		tests = append(tests, test{"gray", asPNG(t, on(false, plain(color.Gray{gray}))), DarkOnLight, 0.5})
	}
	for _, gray := range []uint8{0, 10, 20, 30} {
		tests = append(tests, test{"negative", asPNG(t, on(true, plain(color.Gray{gray}))), LightOnDark, 0.5})
	}
	var asGIF bytes.Buffer
	palette := color.Palette{color.White}
	for v := range 200 {
		palette = append(palette, color.Gray{uint8(v)})
	}
	first, second := image.NewPaletted(boot().Rect, palette), image.NewPaletted(boot().Rect, palette)
	for y := range 90 {
		for x := range 120 {
			first.Set(x, y, boot().GrayAt(x, y))
		}
	}
	if err := gif.EncodeAll(&asGIF, &gif.GIF{Image: []*image.Paletted{first, second}, Delay: []int{1, 1}}); err != nil {
		t.Fatal(err)
	}
	var asJPEG bytes.Buffer
	if err := jpeg.Encode(&asJPEG, boot(), &jpeg.Options{Quality: 40}); err != nil {
		t.Fatal(err)
	}
	large, small := image.NewGray(image.Rect(0, 0, 1920, 1440)), boot()
	for i := range large.Pix {
		large.Pix[i] = small.GrayAt(i%1920/16, i/1920/16).Y
	}
	tests = append(tests,
		test{"blue", asPNG(t, on(false, plain(color.RGBA{120, 160, 250, 255}))), DarkOnLight, 0.5},
		test{"green", asPNG(t, on(false, plain(color.RGBA{80, 220, 90, 255}))), DarkOnLight, 0.5},
		test{"wood", asPNG(t, on(false, uneven(180, 130, 70, 20))), DarkOnLight, 6},
		test{"16 bits, transparent", asPNG(t, on(false, plain(color.Transparent))), DarkOnLight, 0.5},
		test{"palette", asPNG(t, first), DarkOnLight, 0.5},
		test{"GIF, the second frame white", asGIF.Bytes(), DarkOnLight, 0.5},
		test{"JPEG of quality 40", asJPEG.Bytes(), DarkOnLight, 14},
		test{"large", asPNG(t, large), DarkOnLight, 6})
	files, err := filepath.Glob("testdata/boot*") // by Pillow 13
	if err != nil || len(files) != 5 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		file, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests = append(tests, test{name, file, DarkOnLight, 14}) // what JPEG adds beside an edge shifts the cut
	}
	for _, test := range tests {
		r := decode(t, test.file)
		if d := apart(r.Pixels, paper.Pixels); d > test.most || r.Polarity != test.polarity {
			t.Errorf("%s: differs by %.1f a pixel from the boot on paper, expected at most %.1f: %s", test.name, d,
				test.most, r)
		}
		if turned := strings.Contains(test.name, "turned"); turned != (r.Orientation != 1) ||
			turned != strings.Contains(r.String(), "upright") {
			t.Errorf("%s: orientation %d: %s", test.name, r.Orientation, r)
		}
	}
	forced, err := Decode(t.Context(), bytes.NewReader(asPNG(t, boot())), LightOnDark)
	if err != nil || forced.Polarity != LightOnDark || apart(forced.Pixels, paper.Pixels) < 10 {
		t.Errorf("%v: what the user says is not done: %s", err, forced)
	}
}

// A white object on nothing would be nothing on white paper.
func TestWhiteOnTransparentIsSeen(t *testing.T) {
	m := image.NewNRGBA(image.Rect(0, 0, 60, 60))
	for i := 20; i < 40; i++ {
		for j := 10; j < 50; j++ {
			m.Set(i, j, color.White)
		}
	}
	if r := decode(t, asPNG(t, m)); !r.OnBlack || r.Polarity != LightOnDark || r.Cut != [4]int{20, 10, 40, 50} ||
		!strings.Contains(r.String(), "transparent") {
		t.Errorf("%+v", r)
	}
}

// A picture on which nothing is visible has no class.
func TestBlankPicturesAreRefused(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	grain := image.NewGray(image.Rect(0, 0, 200, 200))
	for i := range grain.Pix {
		grain.Pix[i] = uint8(150 + random.IntN(10))
	}
	white := image.NewGray(image.Rect(0, 0, 28, 28))
	for i := range white.Pix {
		white.Pix[i] = 255
	}
	for name, m := range map[string]image.Image{
		"black": image.NewGray(image.Rect(0, 0, 28, 28)), "white": white, "grain": grain,
		"transparent": image.NewNRGBA(image.Rect(0, 0, 300, 200)), "one pixel": image.NewGray(image.Rect(0, 0, 1, 1)),
		"a line": image.NewGray(image.Rect(0, 0, 9000, 1)),
	} {
		r, err := Decode(t.Context(), bytes.NewReader(asPNG(t, m)), Auto)
		if err == nil || !strings.Contains(err.Error(), "nothing is visible") {
			t.Errorf("%s: %v, %s", name, err, r)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	whole := asPNG(t, boot())
	huge := bytes.Clone(whole) // the header claims a huge size
	copy(huge[16:24], []byte{0, 0, 0x40, 0, 0, 0, 0x40, 0})
	for name, file := range map[string]io.Reader{
		"nothing": strings.NewReader(""), "text": strings.NewReader("hello"),
		"half":  bytes.NewReader(whole[:len(whole)/2]),
		"claim": bytes.NewReader(huge), "endless": endless{}, "failing": failing{},
	} {
		if r, err := Decode(t.Context(), file, Auto); err == nil {
			t.Errorf("%s gave %d pixels", name, len(r.Pixels))
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

func FuzzDecode(f *testing.F) {
	f.Add(asPNG(f, boot()))
	var asJPEG, asGIF bytes.Buffer
	if err := errors.Join(jpeg.Encode(&asJPEG, boot(), nil), gif.Encode(&asGIF, boot(), nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(asJPEG.Bytes())
	f.Add(asGIF.Bytes())
	f.Fuzz(func(t *testing.T, file []byte) {
		if w, h, err := picture.Size(file); err == nil && w*h > 1<<16 {
			t.Skip("takes seconds")
		}
		r, err := Decode(t.Context(), bytes.NewReader(file), Auto)
		if err == nil && (len(r.Pixels) != ImageSide*ImageSide || r.Cut[0] >= r.Cut[2] || r.Cut[1] >= r.Cut[3]) {
			t.Errorf("%d pixels, %v", len(r.Pixels), r.Cut)
		}
	})
}
