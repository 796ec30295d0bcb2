package fashion

import (
	"image"
	"testing"

	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
)

// Each mistake is shown as the image that it was, and the matrix as it was counted.
func TestDetailsShowWhatWasMeasured(t *testing.T) {
	images := make([]byte, 3*fashionmnist.Pixels)
	images[2*fashionmnist.Pixels+29] = 200 // of image 2, one right and one down
	r := evaluate.Result{Images: 3, ECE: 0.125, Classes: []evaluate.Class{{Name: "Shirt", Precision: 0.912},
		{Name: "Coat", Support: 2}},
		Confusion: [][]int{{1, 1}, {0, 1}}, Mistakes: []evaluate.Mistake{{Image: 2, Label: 0, Predicted: 1,
			Probability: 0.875}}}
	d := details(r, images)
	matrix, mistake := d.Tables[0], d.Galleries[0].Pictures[0]
	if c := d.Tables[1]; c.Rows[0].Name != "Shirt" || c.Rows[0].Cells[0] != 91.2 || c.Rows[1].Cells[3] != 2 {
		t.Errorf("%+v", c)
	}
	if g := d.Galleries[1]; !g.Charts || g.Pictures[0].Caption != "expected calibration error 12.5%" ||
		g.Pictures[0].Image.Bounds().Dx() > 256 {
		t.Errorf("%+v", g)
	}
	if matrix.Columns[2] != "Coat" || matrix.Rows[0].Name != "Shirt" || matrix.Rows[0].Cells[1] != 1 ||
		matrix.Rows[1].Cells[0] != 0 {
		t.Errorf("%+v", matrix)
	}
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

// Of more classes than a table may have columns no matrix is shown.
func TestAMatrixThatIsTooLargeIsLeftOut(t *testing.T) {
	for classes, tables := range map[int]int{64: 2, 65: 0, 256: 0} {
		r := evaluate.Result{Classes: make([]evaluate.Class, classes), Confusion: make([][]int, classes)}
		if d := details(r, nil); len(d.Tables) != tables || len(d.Galleries) != 2 {
			t.Errorf("%d classes: %d tables and %d galleries", classes, len(d.Tables), len(d.Galleries))
		}
	}
}
