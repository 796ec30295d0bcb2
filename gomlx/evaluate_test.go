package gomlx

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
)

// TestEvaluate: each sample counts once, also in the last batch; the state stays, and a program of one's own that uses
// Store finds the same.
func TestEvaluate(t *testing.T) {
	const n = 50
	o := network{batchNorm: true, dropout: true}
	c := o.config(optimizer.Adam().Done(), map[string]any{optimizer.ParamLearningRate: 0.01})
	c.Metrics = []metric.Interface{metric.NewSparseCategoricalAccuracy("Mean Accuracy", "#acc")}
	m, d := open(t, evenweave.Setup{MicroBatch: 8}, c), data(t, n)
	if err := m.CheckEvaluation(); err != nil || len(m.metrics) != 0 { // before any: it changes nothing
		t.Fatalf("%v, and %d programs", err, len(m.metrics))
	}
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		step(t, m, batches(t, d, i, 16, 8), i, true)
	}
	before := string(m.byPath["/norm/batch_normalization/mean"].bytes)
	var figures [2][]evenweave.Figure
	for i := range figures {
		var err error
		if figures[i], err = m.Evaluate(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	if len(figures[0]) != 2 || figures[0][0] != figures[1][0] || figures[0][1] != figures[1][1] {
		t.Fatalf("%v, then %v", figures[0], figures[1])
	}
	if before != string(m.byPath["/norm/batch_normalization/mean"].bytes) {
		t.Error("an evaluation changes the state")
	}
	store, err := m.Store()
	if err != nil {
		t.Fatal(err)
	}
	all := batches(t, d, 0, n, n)[0].Content.(*dataset.Content)
	values, err := model.CallOnceN(m.Backend(), store, func(scope *model.Scope, x, y *graph.Node) []*graph.Node {
		logits := o.build(scope, x)
		labels, predictions := []*graph.Node{y}, []*graph.Node{logits}
		return []*graph.Node{Correct(labels, predictions), loss.SparseCategoricalCrossEntropyLogits(labels,
			predictions)}
	}, tensorOf(all.Inputs[0], n), tensorOf(all.Labels[0], n))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []evenweave.Figure{
		{Name: "accuracy", Value: float64(values[0].Value().(float32)) / n, Better: evenweave.Higher},
		{Name: "loss", Value: float64(values[1].Value().(float32)), Better: evenweave.Lower},
	} {
		got := figures[0][i]
		if math.Abs(got.Value-want.Value) > 1e-6 || got.Name != want.Name || got.Better != want.Better {
			t.Errorf("%+v, expected %+v", got, want)
		}
	}
}

// TestClipNorm: a step is as long as the norm allows, in its direction.
func TestClipNorm(t *testing.T) {
	c := network{}.config(optimizer.StochasticGradientDescent().WithDecay(false),
		map[string]any{optimizer.ParamLearningRate: 1.0})
	c.ClipNorm, c.Counts = 0.01, []Count{Correct}
	m, d := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, c), data(t, 16)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	var old [][]float32
	for _, s := range m.state[:m.summed] {
		old = append(old, append([]float32(nil), s.flat.([]float32)...))
	}
	grads := buffers(m)
	s, err := m.Gradients(batches(t, d, 0, 16, 16)[0], grads)
	if err != nil || len(s.Metrics) != 1 || s.Metrics[0] < 0 || s.Metrics[0] > 16 {
		t.Fatalf("%+v, %v", s, err)
	}
	if err := m.Update(grads, 0); err != nil {
		t.Fatal(err)
	}
	var moved, along, length float64
	for i, s := range m.state[:m.summed] {
		for j, v := range s.flat.([]float32) {
			d := float64(old[i][j]) - float64(v)
			moved, along, length = moved+d*d, along+d*float64(grads[i][j]), length+math.Pow(float64(grads[i][j]), 2)
		}
	}
	if math.Abs(math.Sqrt(moved)-0.01) > 1e-5 || along < 0.999*math.Sqrt(moved*length) {
		t.Errorf("the step has length %v, the gradient %v, their product is %v", math.Sqrt(moved), math.Sqrt(length),
			along)
	}
}

// TestPerplexity: it is e to the mean loss over all samples, also where batches differ in size.
func TestPerplexity(t *testing.T) {
	c := network{}.config(nil, nil)
	c.Metrics = []metric.Interface{Perplexity()}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 8}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	figures, err := m.Evaluate(t.Context(), data(t, 50))
	if err != nil || len(figures) != 2 || figures[0].Name != "perplexity" || figures[0].Better != evenweave.Lower ||
		math.Abs(math.Log(figures[0].Value)-figures[1].Value) > 1e-5 {
		t.Errorf("%v, %v", figures, err)
	}
}

// TestMeanAbsoluteError: it is the mean over all samples, whatever type and shape the labels have.
func TestMeanAbsoluteError(t *testing.T) {
	c := Config{Model: echo, Metrics: []metric.Interface{MeanAbsoluteError()},
		Loss:   func(_, predictions []*graph.Node) *graph.Node { return graph.ReduceAllMean(predictions[0]) },
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 1)}, Labels: []shapes.Shape{shapes.Make(dtypes.Int32)}}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 2}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	d, err := dataset.InMemory([]dataset.Flat{dataset.Of([]float32{1.5, 0, -4}, 1)},
		[]dataset.Flat{dataset.Of([]int32{1, 2, -7})})
	if err != nil {
		t.Fatal(err)
	}
	figures, err := m.Evaluate(t.Context(), d)
	if err != nil || len(figures) != 2 || figures[0].Name != "mae" || figures[0].Better != evenweave.Lower ||
		math.Abs(figures[0].Value-5.5/3) > 1e-6 {
		t.Errorf("%+v, %v", figures, err)
	}
}

// TestCorrectBy: a sample that is right counts as much as it weighs. Counts that forget weights are warned of, once.
func TestCorrectBy(t *testing.T) {
	var log bytes.Buffer
	c := Config{Model: echo, Loss: loss.SparseCategoricalCrossEntropyLogits, Fractions: true,
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 2)},
		Labels: []shapes.Shape{shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Float32)},
		Weight: func(labels []*graph.Node) *graph.Node { return graph.ReduceAllSum(labels[1]) },
		Counts: []Count{CorrectBy(1), Correct}}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, Log: slog.New(slog.NewTextHandler(&log, nil))}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	d, err := dataset.InMemory([]dataset.Flat{dataset.Of([]float32{1, 0, 1, 0, 0, 1, 0, 1}, 2)},
		[]dataset.Flat{dataset.Of([]int32{0, 1, 1, 1}, 1), dataset.Of([]float32{0.5, 0.25, 0.25, 0})})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := m.Gradients(batches(t, d, 0, 4, 4)[0], buffers(m))
		if err != nil || s.Weight != 256 || s.Metrics[0] != 192 || s.Metrics[1] != 3*256 {
			t.Errorf("%+v, %v: expected 3/4 of the weight 1, and three samples", s, err)
		}
	}
	if n := strings.Count(log.String(), "count=1 counted=3 weight=1"); n != 1 {
		t.Errorf("%d warnings of the second count: %s", n, log.String())
	}
}
