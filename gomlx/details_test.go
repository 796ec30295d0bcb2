package gomlx

import (
	"bytes"
	"fmt"
	"image"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"

	"evenweave"
	"evenweave/dataset"
	"evenweave/evaluation"
)

// echo predicts what its inputs are, but for a weight of 1 that training needs.
func echo(scope *model.Scope, x *graph.Node) *graph.Node {
	one := scope.WithInitializer(func(g *graph.Graph, s shapes.Shape) *graph.Node {
		return graph.Ones(g, s)
	}).VariableWithShape("one", shapes.Make(dtypes.Float32)).NodeValue(x.Graph())
	return graph.Mul(x, one)
}

// shows evaluates echo on inputs and labels of n samples, and checks that the figures are those without details.
func shows(t *testing.T, c Config, input dataset.Flat, labels ...dataset.Flat) evenweave.Details {
	t.Helper()
	d, err := dataset.InMemory([]dataset.Flat{input}, labels)
	if err != nil {
		t.Fatal(err)
	}
	shape := func(f dataset.Flat) shapes.Shape {
		for dtype, name := range types() {
			if name == f.Type {
				return shapes.Make(dtype, f.Shape...)
			}
		}
		panic(f.Type)
	}
	c.Model, c.Inputs, c.Labels = echo, []shapes.Shape{shape(input)}, nil
	for _, l := range labels {
		c.Labels = append(c.Labels, shape(l))
	}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, EvaluateOnly: true}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	figures, details, err := m.EvaluateDetails(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	if alone, err := m.Evaluate(t.Context(), d); err != nil || fmt.Sprint(alone) != fmt.Sprint(figures) {
		t.Errorf("figures %v, without details %v, %v", figures, alone, err)
	}
	return details
}

// rows are those of the table of a title, as text.
func rows(d evenweave.Details, title string) string {
	for _, t := range d.Tables {
		if t.Title == title {
			for _, r := range t.Rows {
				for i, x := range r.Cells {
					r.Cells[i] = math.Round(x*1e3) / 1e3
				}
			}
			return fmt.Sprint(t.Rows)
		}
	}
	return "no table"
}

// What labels are is found from their shape and the loss; each sample counts once, in its class.
func TestDetailsOfClassifiers(t *testing.T) {
	const matrix = "Confusion matrix"
	three := dataset.Of([]float32{9, 0, 0, 0, 9, 0, 0, 9, 0, 0, 0, 9, 9, 0, 0, 0, 2, 1}, 3) // classes 0 1 1 2 0 1
	is := []int32{0, 1, 2, 2, 0, 1}
	c := Config{Loss: loss.SparseCategoricalCrossEntropyLogits, Classes: []string{"a", "b"}}
	d := shows(t, c, three, dataset.Of(is, 1))
	if got := rows(d, matrix); got != "[{a [2 0 0]} {b [0 2 0]} {2 [0 1 1]}]" {
		t.Errorf("indices: %s", got)
	}
	if got := rows(d, "Most confident mistakes"); got != "[{2: 2, taken for b [100]}]" {
		t.Errorf("mistakes: %s", got)
	}
	if d := shows(t, c, three, dataset.Of(is, 1), dataset.Of([]bool{true, true, false, true, true, false})); rows(d,
		matrix) != "[{a [2 0 0]} {b [0 1 0]} {2 [0 0 1]}]" {
		t.Errorf("with a mask: %s", rows(d, matrix))
	}
	own := Config{Loss: func(labels, predictions []*graph.Node) *graph.Node {
		return loss.SparseCategoricalCrossEntropyLogits(labels, predictions)
	}}
	if d := shows(t, own, three, dataset.Of(is, 1)); rows(d, matrix) != "[{0 [2 0 0]} {1 [0 2 0]} {2 [0 1 1]}]" {
		t.Errorf("a loss of one's own: %s", rows(d, matrix))
	}
	var hot []float32
	for _, i := range is {
		one := make([]float32, 3)
		one[i] = 1
		hot = append(hot, one...)
	}
	c = Config{Loss: loss.CategoricalCrossEntropyLogits}
	if d := shows(t, c, three, dataset.Of(hot, 3)); rows(d, matrix) != "[{0 [2 0 0]} {1 [0 2 0]} {2 [0 1 1]}]" {
		t.Errorf("one-hot labels: %s", rows(d, matrix))
	}
	for name, of := range map[string]struct {
		loss   loss.LossFn
		input  []float32
		labels dataset.Flat
	}{
		"binary logits": {loss.BinaryCrossentropyLogits, []float32{-9, 9, float32(math.Log(7)), -1},
			dataset.Of([]float32{0, 1, 0, 0}, 1)},
		"binary probabilities": {loss.BinaryCrossentropy, []float32{0.01, 0.99, 0.875, 0.25},
			dataset.Of([]float32{0, 1, 0, 0}, 1)},
		"truth": {loss.BinaryCrossentropyLogits, []float32{-9, 9, float32(math.Log(7)), -1},
			dataset.Of([]bool{false, true, false, false}, 1)},
	} {
		d := shows(t, Config{Loss: of.loss}, dataset.Of(of.input, 1), of.labels)
		if rows(d, matrix) != "[{0 [2 1]} {1 [0 1]}]" ||
			rows(d, "Most confident mistakes") != "[{2: 0, taken for 1 [87.5]}]" {
			t.Errorf("%s: %s, %s", name, rows(d, matrix), rows(d, "Most confident mistakes"))
		}
	}
}

// What predicts numbers shows its errors, and what predicts sequences the loss by position; masked places do not count.
func TestDetailsOfOtherModels(t *testing.T) {
	d := shows(t, Config{Loss: loss.MeanSquaredError}, dataset.Of([]float32{1, 2, 3, 4, 9}, 1),
		dataset.Of([]float32{1, 2, 3, 4, 5}, 1))
	if rows(d, "Errors") != "[{mean [0.8]} {mean absolute [0.8]} {root mean square [1.789]} "+
		"{explained [-0.6]}]" || !strings.HasPrefix(rows(d, "Largest errors"),
		"[{4 [5 9 4]} {0 [1 1 0]}") {
		t.Errorf("%s, %s", rows(d, "Errors"), rows(d, "Largest errors"))
	}
	scores := make([]float32, 5*3*2) // five sequences of three places, all equal: a loss of ln 2 each
	labels, mask := make([]int32, 5*3), make([]bool, 5*3)
	for i := range labels {
		labels[i], mask[i] = int32(i%2), i%3 < 2
	}
	c := Config{Loss: loss.SparseCategoricalCrossEntropyLogits}
	one := "[{1 [0.693 2 60 5]} {2 [0.693 2 40 5]}"
	for name, more := range map[string]string{"all": " {3 [0.693 2 60 5]}]",
		"masked": "]"} {
		all := []dataset.Flat{dataset.Of(labels, 3, 1)}
		if name == "masked" {
			all = append(all, dataset.Of(mask, 3))
		}
		if got := rows(shows(t, c, dataset.Of(scores, 3, 2), all...), "By position"); got != one+more {
			t.Errorf("%s: %s", name, got)
		}
	}
	c.Weight = func(labels []*graph.Node) *graph.Node { return graph.Const(labels[0].Graph(), float32(1)) }
	if d := shows(t, c, dataset.Of(scores, 3, 2), dataset.Of(labels, 3, 1)); len(d.Tables) > 0 {
		t.Errorf("places whose weights are not known: %v", d)
	}
	d = shows(t, Config{Loss: loss.MeanSquaredError}, dataset.Of(scores, 3, 2), dataset.Of(scores, 3, 2))
	if len(d.Tables)+len(d.Galleries) > 0 {
		t.Errorf("numbers of several places: %v", d)
	}
}

// A label that is no class leaves the figures as they are, with a warning: GoMLX's loss takes it for 0.
func TestDetailsOfWrongLabels(t *testing.T) {
	var log bytes.Buffer
	c := network{}.config(nil, nil)
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, EvaluateOnly: true,
		Log: slog.New(slog.NewTextHandler(&log, nil))}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	d, err := dataset.InMemory([]dataset.Flat{dataset.Of(make([]float32, 3*features), features)},
		[]dataset.Flat{dataset.Of([]int32{0, classes, 1}, 1)})
	if err != nil {
		t.Fatal(err)
	}
	figures, details, err := m.EvaluateDetails(t.Context(), d)
	if err != nil || len(figures) != 1 || len(details.Tables) > 0 ||
		!strings.Contains(log.String(), "label 5 of sample 1") {
		t.Errorf("%v, %v, %v, %s", figures, details, err, log.String())
	}
}

// Mistakes are shown as the data's pictures, under its names of classes, whatever the size of a micro-batch.
func TestDetailsOfPictures(t *testing.T) {
	const n, side = 30, 4
	pixels, labels := make([]byte, n*side*side), make([]int32, n)
	random := evenweave.NewGenerator(5)
	for i := range pixels {
		pixels[i] = byte(random.Below(256))
	}
	for i := range labels {
		labels[i] = int32(random.Below(3))
	}
	held, err := dataset.InMemory([]dataset.Flat{dataset.Of(pixels, side, side)}, []dataset.Flat{dataset.Of(labels, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{Loss: loss.SparseCategoricalCrossEntropyLogits, Inputs: []shapes.Shape{shapes.Make(dtypes.Uint8, side,
		side)}, Labels: []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
		Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
			x = graph.DivScalar(graph.ConvertDType(graph.Reshape(x, -1, side*side), dtypes.Float32), 64)
			return layers.Dense(scope, x, true, 3)
		}}
	var all []string
	for _, micro := range []int{1, 4, n} {
		m := open(t, evenweave.Setup{Backend: "go", MicroBatch: micro, EvaluateOnly: true}, c)
		if err := m.Init(3); err != nil {
			t.Fatal(err)
		}
		_, d, err := m.EvaluateDetails(t.Context(), classed{held, held.(evenweave.Pictured)})
		if err != nil {
			t.Fatal(err)
		}
		text := rows(d, "Confusion matrix")
		mistakes := d.Galleries[0].Pictures
		if len(mistakes) == 0 || len(mistakes) > evaluation.MaxMistakes || !strings.HasPrefix(text, "[{shirt [") {
			t.Fatalf("%d mistakes, %s", len(mistakes), text)
		}
		for _, p := range mistakes {
			text += fmt.Sprintf("\n%s %x", p.Caption, p.Image.(*image.Gray).Pix)
		}
		all = append(all, text)
	}
	if all[0] != all[1] || all[1] != all[2] {
		t.Errorf("micro-batches of other sizes show:\n%s\n%s\n%s", all[0], all[1], all[2])
	}
}

// classed is data with names for its classes.
type classed struct {
	evenweave.Data
	evenweave.Pictured
}

func (classed) Classes() []string { return []string{"shirt", "coat", "dress"} }
func (classed) Class(int) int     { return -1 }
