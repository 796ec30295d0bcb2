package picture

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
	"image/draw"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stored reads a file of testdata. Pillow 13 wrote them all, of one picture: 24 x 16 pixels whose red rises by 10 with
// each column and whose green rises by 15 with each row, with blue 90. Those named exif are turned as their tag says.
func stored(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPicturesOfAllKindsAreOnePicture: each real file, upright, shows what the others do.
func TestPicturesOfAllKindsAreOnePicture(t *testing.T) {
	files, err := filepath.Glob("testdata/*.*")
	if err != nil || len(files) < 18 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		file := stored(t, name)
		m, err := Decode(t.Context(), file)
		if name == "animated.webp" {
			if err == nil || !strings.Contains(err.Error(), "animated") {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		flat := image.NewRGBA(image.Rect(0, 0, m.Bounds().Dx(), m.Bounds().Dy()))
		draw.Draw(flat, flat.Rect, m, m.Bounds().Min, draw.Src)
		up := Upright(flat, Orientation(file))
		if up.Rect != image.Rect(0, 0, 24, 16) {
			t.Errorf("%s is %v", name, up.Rect)
			continue
		}
		tolerance := 32 // of lossy formats, with colors of half the resolution, and of palettes
		if strings.HasSuffix(name, ".png") && name != "palette.png" || name == "lossless.webp" {
			tolerance = 0
		}
		for y := range 16 {
			for x := range 24 {
				want := color.RGBA{uint8(10 * x), uint8(15 * y), 90, 255}
				switch {
				case strings.HasPrefix(name, "alpha") && y < 4:
					want = color.RGBA{}
				case strings.HasPrefix(name, "alpha") && y < 6:
					continue // the seam
				case name == "gray16.png":
					want = color.RGBA{uint8(10 * x), uint8(10 * x), uint8(10 * x), 255}
				}
				if got := up.RGBAAt(x, y); !alike(got, want, tolerance) {
					t.Fatalf("%s: pixel %d, %d is %v, want %v", name, x, y, got, want)
				}
			}
		}
	}
}

func alike(a, b color.RGBA, tolerance int) bool {
	for _, d := range []int{int(a.R) - int(b.R), int(a.G) - int(b.G), int(a.B) - int(b.B), int(a.A) - int(b.A)} {
		if max(d, -d) > tolerance {
			return false
		}
	}
	return true
}

// TestDamagedOrientationIsUpright: lengths, offsets and values that lead nowhere.
func TestDamagedOrientationIsUpright(t *testing.T) {
	for _, name := range []string{"exif-6.jpg", "exif-6.png", "exif-6.webp"} {
		whole := stored(t, name)
		if got := Orientation(whole); got != 6 {
			t.Fatalf("%s: orientation %d", name, got)
		}
		for cut := range whole {
			if o := Orientation(whole[:cut]); o != 1 && o != 6 {
				t.Fatalf("%s cut at %d: %d", name, cut, o)
			}
		}
		tiff := max(bytes.Index(whole, []byte("MM\x00*")), bytes.Index(whole, []byte("II*\x00")))
		var order binary.ByteOrder = binary.BigEndian
		if whole[tiff] == 'I' {
			order = binary.LittleEndian
		}
		for _, offset := range []uint32{0xffffffff, 0x7fffffff, uint32(len(whole)), 0} {
			bad := bytes.Clone(whole)
			order.PutUint32(bad[tiff+4:], offset)
			if o := Orientation(bad); o != 1 {
				t.Errorf("%s with a directory at %d: %d", name, offset, o)
			}
		}
	}
}
