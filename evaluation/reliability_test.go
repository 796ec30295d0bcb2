package evaluation

import (
	"image/color"
	"testing"
)

// Each bar is as high as the share of right answers, its mark at the mean confidence, and nothing is where no image is.
func TestReliabilityShowsEachBin(t *testing.T) {
	m := reliability([]Bin{{From: 0.2, To: 0.4, Samples: 3, Confidence: 0.3, Accuracy: 0.6},
		{From: 0.8, To: 1, Samples: 9, Confidence: 0.95, Accuracy: 0}})
	if m.Bounds().Dx() != chartSide || m.Bounds().Dy() != chartSide {
		t.Fatalf("%v", m.Bounds())
	}
	at := func(x, y float64) color.Color {
		return m.At(chartLeft+int(x*chartInner), chartTop+int((1-y)*chartInner))
	}
	blue, mark := color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}
	for _, p := range []struct {
		x, y float64
		want color.Color
	}{
		{0.37, 0.59, blue}, {0.23, 0.05, blue}, {0.37, 0.62, color.RGBA{255, 255, 255, 255}}, {0.25, 0.3, mark},
		{0.9, 0.95, mark}, {0.85, 0.1, color.RGBA{255, 255, 255, 255}}, {0.6, 0.2, color.RGBA{255, 255, 255, 255}},
	} {
		if got := at(p.x, p.y); got != p.want {
			t.Errorf("at %v, %v: %v, want %v", p.x, p.y, got, p.want)
		}
	}
	reliability([]Bin{{From: 14. / 15, To: 1, Confidence: 1, Accuracy: 1}}) // to the very edge
	reliability(nil)
}
