package picture

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"strings"
	"testing"
)

// A photograph of 50 million pixels is decoded in little more memory than its pixels take, and shrunk without its
// colors changing place.
func TestALargePhotographIsRead(t *testing.T) {
	m := image.NewYCbCr(image.Rect(0, 0, 8192, 6144), image.YCbCrSubsampleRatio420)
	for i := range m.Y {
		m.Y[i] = 40
		if i >= len(m.Y)/2 {
			m.Y[i] = 200
		}
	}
	for i := range m.Cb {
		m.Cb[i], m.Cr[i] = 128, 128
	}
	var file bytes.Buffer
	if err := jpeg.Encode(&file, m, nil); err != nil {
		t.Fatal(err)
	}
	before := allocated()
	decoded, err := Decode(t.Context(), file.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	small := Shrunk(decoded)
	if took := allocated() - before; took > 192<<20 {
		t.Errorf("it took %d MiB", took>>20)
	}
	if small.Bounds() != image.Rect(0, 0, 4096, 3072) {
		t.Fatalf("%v", small.Bounds())
	}
	for y, want := range map[int]uint8{0: 40, 1530: 40, 1542: 200, 3071: 200} {
		if got := color.GrayModel.Convert(small.At(4095, y)).(color.Gray).Y; max(got, want)-min(got, want) > 2 {
			t.Errorf("row %d is %d, want %d", y, got, want)
		}
	}
}

// Shrinking takes the mean of each square, and leaves a picture alone that needs none.
func TestShrinkingIsTheMean(t *testing.T) {
	m := image.NewGray(image.Rect(5, 7, 5+5001, 7+5001))
	for i := range m.Pix {
		m.Pix[i] = uint8(i%2*100 + i/m.Stride%2*50)
	}
	small := Shrunk(m)
	if small.Bounds() != image.Rect(0, 0, 2500, 2500) {
		t.Fatalf("%v", small.Bounds())
	}
	if c := small.At(1234, 2499).(color.RGBA); c != (color.RGBA{75, 75, 75, 255}) {
		t.Errorf("%v, want the mean of four pixels", c)
	}
	if same := image.NewGray(image.Rect(0, 0, 4096, 4096)); Shrunk(same) != image.Image(same) {
		t.Error("a picture of 16 Mi pixels is another one")
	}
}

// What would take too much memory is refused by its header.
func TestMemoryIsBoundedByTheHeader(t *testing.T) {
	frame := func(marker, channels byte, w, h int) []byte {
		file := []byte{0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2, 0xff, 0xff, marker, 0, 8 + 3*channels, 8,
			byte(h >> 8), byte(h), byte(w >> 8), byte(w), channels}
		for c := range channels {
			file = append(file, c+1, 0x11, 0)
		}
		return append(file, 0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0)
	}
	for _, c := range []struct {
		marker, channels byte
		w, h             int
		refused          string
	}{
		{0xc0, 3, 12000, 9000, ""}, {0xc0, 3, 16384, 8192, ""}, {0xc0, 3, 16384, 8193, "134217728 in all"},
		{0xc0, 4, 16384, 8192, ""}, {0xc0, 1, 32769, 100, "32768 a side"}, {0xc2, 3, 8192, 4096, ""},
		{0xc2, 3, 8192, 6144, "up to 15 bytes"}, {0xc2, 1, 8192, 6144, ""}, {0xc2, 1, 16384, 8192, "up to 5 bytes"},
	} {
		_, _, err := Size(frame(c.marker, c.channels, c.w, c.h))
		if (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for format, want := range map[string]int{"PNG": 4, "GIF": 4, "JPEG": 20} {
		if got := bytesOfPixel(format, color.NRGBAModel, nil); got != want {
			t.Errorf("%s: %d, want %d", format, got, want)
		}
	}
	if got := bytesOfPixel("PNG", color.NRGBA64Model, nil); got != 8 {
		t.Error(fmt.Sprint(got))
	}
}
