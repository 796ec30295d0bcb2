package picture

import (
	"image/color"
	"testing"
)

// A lossy WebP has the colors that other programs see: libwebp's of the middles of five flat stripes.
func TestWebPHasItsColors(t *testing.T) {
	m, err := Decode(t.Context(), stored(t, "webp/flat.webp"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []color.RGBA{{255, 255, 255, 255}, {0, 0, 0, 255}, {200, 0, 0, 255}, {0, 90, 201, 255},
		{128, 128, 128, 255}} {
		if got := color.RGBAModel.Convert(m.At(32*i+16, 16)).(color.RGBA); !alike(got, want, 1) {
			t.Errorf("stripe %d is %v, want %v", i, got, want)
		}
	}
}
