package fashion

import (
	"image"
	"testing"

	"evenweave/evaluation"
	"evenweave/fashion/fashionmnist"
)

// Each mistake is shown as the image that it was.
func TestMistakesAreShownAsTheirImages(t *testing.T) {
	images := make([]byte, 3*fashionmnist.Pixels)
	images[2*fashionmnist.Pixels+29] = 200 // of image 2, one right and one down
	r := evaluation.Result{Samples: 3, Classes: []evaluation.Class{{Name: "Shirt"}, {Name: "Coat"}},
		Confusion: [][]int{{1, 1}, {0, 1}}, Mistakes: []evaluation.Mistake{{Sample: 2, Label: 0, Predicted: 1,
			Probability: 0.875}}}
	d, err := details(r, images)
	if err != nil {
		t.Fatal(err)
	}
	mistake := d.Galleries[0].Pictures[0]
	if mistake.Caption != "Shirt, taken for Coat (87.5%)" || mistake.Image.Bounds() != image.Rect(0, 0, 28, 28) {
		t.Errorf("%q, %v", mistake.Caption, mistake.Image.Bounds())
	}
	for y := range 28 {
		for x := range 28 {
			v, _, _, _ := mistake.Image.At(x, y).RGBA()
			if want := (x == 1 && y == 1); want != (v>>8 == 200) || !want && v != 0 {
				t.Fatalf("pixel %d, %d is %d", x, y, v>>8)
			}
		}
	}
}
