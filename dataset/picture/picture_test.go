package picture

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"runtime"
	"strings"
	"testing"
)

// hugeTile is a TIFF of 28 x 28 gray pixels with one black tile of side x side pixels: with side 65535 it is a file of
// 2 MB that takes gigabytes to decode.
func hugeTile(t testing.TB, side uint16) []byte {
	var packed bytes.Buffer
	z := zlib.NewWriter(&packed)
	if _, err := io.CopyN(z, zeros{}, int64(side)*int64(side)/2); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	entries := [][4]uint32{ // tag, type, count, value
		{256, 3, 1, 28}, {257, 3, 1, 28}, {258, 3, 1, 8}, {259, 3, 1, 8}, {262, 3, 1, 1}, {277, 3, 1, 1},
		{322, 3, 1, uint32(side)}, {323, 3, 1, uint32(side)}, {324, 4, 1, 0}, {325, 4, 1, uint32(packed.Len())},
	}
	entries[8][3] = uint32(8 + 2 + 12*len(entries) + 4) // the tile follows the directory
	file := binary.LittleEndian.AppendUint32([]byte("II*\x00"), 8)
	file = binary.LittleEndian.AppendUint16(file, uint16(len(entries)))
	for _, e := range entries {
		file = binary.LittleEndian.AppendUint16(file, uint16(e[0]))
		file = binary.LittleEndian.AppendUint16(file, uint16(e[1]))
		file = binary.LittleEndian.AppendUint32(file, e[2])
		file = binary.LittleEndian.AppendUint32(file, e[3])
	}
	return append(binary.LittleEndian.AppendUint32(file, 0), packed.Bytes()...)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// manyScans is a progressive JPEG of side x side gray pixels; each scan sets all of them to zero in a few bytes.
func manyScans(side uint16, scans int) []byte {
	high, low := byte(side>>8), byte(side)
	file := []byte{0xff, 0xd8,
		0xff, 0xc2, 0, 11, 8, high, low, high, low, 1, 1, 0x11, 0} // SOF2
	// AC: "0" is a run of at least 2^14 blocks.
	table := []byte{0xff, 0xc4, 0, 20, 0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0}
	file = append(file, table...)
	blocks := (int(side) + 7) / 8 * ((int(side) + 7) / 8)
	var run []byte // each run is 15 zero bits: its code and its length beyond 2^14, none
	for range (blocks/(1<<14) + 1) * 15 / 8 {
		run = append(run, 0)
	}
	run = append(run, 0)
	for range scans {
		file = append(file, 0xff, 0xda, 0, 8, 1, 1, 0, 1, 63, 0x00)
		file = append(file, run...)
	}
	return append(file, 0xff, 0xd9)
}

func TestOtherFormatsAreNamedAndNotDecoded(t *testing.T) {
	for name, file := range map[string][]byte{
		"TIFF": hugeTile(t, 1<<14), "BMP": append([]byte("BM"), make([]byte, 100)...),
		"HEIF or AVIF": []byte("\x00\x00\x00\x18ftypavif"),
	} {
		before := allocated()
		picture, err := Decode(t.Context(), file)
		if err == nil || !strings.Contains(err.Error(), "a "+name+" image is not read") {
			t.Errorf("%s: %v, %v", name, picture != nil, err)
		}
		if took := allocated() - before; took > 64<<20 {
			t.Errorf("%s: a file of %d bytes took %d bytes of memory", name, len(file), took)
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// countdown is a context that ends after a number of calls of Err.
type countdown struct {
	context.Context
	looks int
}

var errCountedDown = errors.New("counted down")

func (p *countdown) Err() error {
	if p.looks--; p.looks < 0 {
		return errCountedDown
	}
	return nil
}

func TestDecodingEndsWithItsContext(t *testing.T) {
	if _, err := Decode(t.Context(), manyScans(1024, 20)); err != nil {
		t.Fatal("the picture for this test is broken:", err)
	}
	file := manyScans(4096, 100_000)
	p := &countdown{t.Context(), 30}
	if _, err := decode(p, file); !errors.Is(err, errCountedDown) {
		t.Errorf("got %v, want %v", err, errCountedDown)
	}
}

func TestMemoryOfTheLargestPictures(t *testing.T) {
	for name, file := range map[string][]byte{
		"progressive JPEG": manyScans(4096, 2), "PNG": encoded(t, image.NewNRGBA64(image.Rect(0, 0, 4096, 4096))),
	} {
		before := allocated()
		if _, err := Decode(t.Context(), file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := allocated() - before; took > 600<<20 {
			t.Errorf("%s took %d bytes of memory", name, took)
		}
	}
}

func encoded(t testing.TB, m image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func FuzzDecode(f *testing.F) {
	m := image.NewPaletted(image.Rect(0, 0, 9, 4), color.Palette{color.Black, color.White})
	var asJPEG, asGIF bytes.Buffer
	if err := errors.Join(jpeg.Encode(&asJPEG, m, nil), gif.Encode(&asGIF, m, nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(encoded(f, m))
	f.Add(asJPEG.Bytes())
	f.Add(asGIF.Bytes())
	f.Add(hugeTile(f, 16))
	for _, name := range []string{"alpha.webp", "lossless.webp", "exif-6.webp", "exif-6.jpg", "exif-6.png",
		"cmyk.jpg"} {
		f.Add(stored(f, name))
	}
	f.Add(manyScans(8, 20))
	f.Fuzz(func(t *testing.T, file []byte) {
		w, h, err := Size(file)
		if err == nil && w*h > 1<<16 {
			t.Skip("takes seconds")
		}
		if o := Orientation(file); o < 1 || o > 8 {
			t.Errorf("orientation %d", o)
		}
		picture, err2 := Decode(t.Context(), file)
		if err != nil && err2 == nil || err2 == nil && (picture.Bounds().Dx() > w || picture.Bounds().Dy() > h) {
			t.Errorf("%v where the header announces %d x %d, %v", picture.Bounds(), w, h, err)
		}
	})
}
