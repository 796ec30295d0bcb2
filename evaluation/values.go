package evaluation

import (
	"cmp"
	"fmt"
	"image"
	"math"

	"evenweave"
)

// maxPoints bounds those of the chart.
const maxPoints = 2048

// Values measures predicted numbers.
type Values struct {
	every, samples          int
	sum, absolute, squares  float64 // of errors
	labels, squaresOfLabels float64 // sums of labels, less the first one
	first                   float64
	worst                   []valueError
	points                  [][2]float64 // label and prediction
}

// valueError is a sample and how far its prediction is off.
type valueError struct {
	sample           int
	label, predicted float64
}

func (e valueError) off() float64 { return math.Abs(e.predicted - e.label) }

// NewValues measures about so many samples.
func NewValues(samples int) *Values { return &Values{every: max(1, (samples+maxPoints-1)/maxPoints)} }

// Add counts a sample.
func (v *Values) Add(sample int, label, predicted float64) error {
	e := valueError{sample, label, predicted}
	if math.IsNaN(e.off()) || math.IsInf(e.off(), 0) {
		return fmt.Errorf("sample %d has the label %g and the prediction %g: expected finite numbers", sample, label,
			predicted)
	}
	if v.samples == 0 {
		v.first = label
	}
	if v.samples%v.every == 0 && len(v.points) < maxPoints {
		v.points = append(v.points, [2]float64{label, predicted})
	}
	v.samples++
	off := predicted - label
	v.sum, v.absolute, v.squares = v.sum+off, v.absolute+e.off(), v.squares+off*off
	label -= v.first // the spread of numbers that are far from 0 would be lost
	v.labels, v.squaresOfLabels = v.labels+label, v.squaresOfLabels+label*label
	v.worst = keep(v.worst, e, func(a, b valueError) int {
		return cmp.Or(cmp.Compare(b.off(), a.off()), cmp.Compare(a.sample, b.sample))
	})
	return nil
}

// Details are the size of errors, the largest ones, and predictions drawn over labels.
func (v *Values) Details() (out evenweave.Details) {
	if v.samples == 0 {
		return out
	}
	n := float64(v.samples)
	sizes := evenweave.Table{Title: "Errors", Columns: []string{"error", "value"},
		About: fmt.Sprintf("Prediction less label, over %d samples. Explained is 1 less the mean square of errors by "+
			"the variance of labels (R²): 1 is perfect, 0 as good as their mean.", v.samples),
		Rows: []evenweave.Row{{Name: "mean", Cells: []float64{v.sum / n}},
			{Name: "mean absolute", Cells: []float64{v.absolute / n}},
			{Name: "root mean square", Cells: []float64{math.Sqrt(v.squares / n)}}}}
	if spread := v.squaresOfLabels - v.labels*v.labels/n; spread > 0 {
		sizes.Rows = append(sizes.Rows, evenweave.Row{Name: "explained", Cells: []float64{1 - v.squares/spread}})
	}
	largest := evenweave.Table{Title: "Largest errors", Columns: []string{"sample", "label", "prediction", "error"},
		About: "The samples whose predictions are farthest from their labels."}
	for _, e := range v.worst {
		largest.Rows = append(largest.Rows, evenweave.Row{Name: fmt.Sprint(e.sample),
			Cells: []float64{e.label, e.predicted, e.predicted - e.label}})
	}
	out.Tables = []evenweave.Table{sizes, largest}
	out.Galleries = []evenweave.Gallery{{Title: "Predictions", Charts: true,
		About:    "Each point is a sample: its prediction over its label. On the diagonal they are equal.",
		Pictures: []evenweave.Picture{{Image: scatter(v.points), Caption: fmt.Sprintf("%d samples", len(v.points))}}}}
	return out
}

// scatter draws points on axes that hold all of them.
func scatter(points [][2]float64) image.Image {
	from, to := points[0][0], points[0][0]
	for _, p := range points {
		from, to = min(from, p[0], p[1]), max(to, p[0], p[1])
	}
	if to == from {
		from, to = from-1, to+1
	}
	from, half := span(from, to)
	share := func(x float64) float64 { return (x - from) / (2 * half) }
	c := newChart([3]string{tick(from), tick(from + half), tick(from + 2*half)})
	c.diagonal()
	for _, p := range points {
		x, y := c.x(share(p[0])), c.y(share(p[1]))
		c.fill(x-1, y-1, x+1, y+1, blue)
	}
	c.write(2, 13, blue, "prediction")
	c.axes("label")
	return c
}
