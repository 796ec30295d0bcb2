package gomlx

import (
	"cmp"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
)

// linear is a model of one layer, with something before it.
func linear(before func(scope *model.Scope, x *graph.Node)) func(scope *model.Scope, x *graph.Node) *graph.Node {
	return func(scope *model.Scope, x *graph.Node) *graph.Node {
		before(scope, x)
		return layers.Dense(scope.In("dense"), x, true, classes)
	}
}

// with adds a variable to a linear model.
func with(path string, value any) func(*Config) {
	return func(c *Config) {
		c.Model = linear(func(scope *model.Scope, x *graph.Node) {
			scope.VariableWithValue(path, value).SetTrainable(false).NodeValue(x)
		})
	}
}

// TestRefused: what cannot be exact is refused by name when the model opens, with what to do.
func TestRefused(t *testing.T) {
	add := func(v *model.Variable, x *graph.Node) { v.SetNodeValue(graph.Add(v.NodeValue(x), x)) }
	of := func(m any) func(*Config) { return func(c *Config) { c.Model = m } }
	for name, row := range map[string]struct {
		change        func(*Config)
		backend, says string
	}{
		"a trainable integer": {of(linear(func(scope *model.Scope, x *graph.Node) {
			scope.VariableWithValue("table", int32(1)).NodeValue(x)
		})), "", "variable /table is trainable and of type Int32"},
		"a weight that the model changes": {of(linear(func(scope *model.Scope, x *graph.Node) {
			add(scope.VariableWithValue("ema", float32(1)), graph.ScalarOne(x.Graph(), dtypes.Float32))
		})), "", "changes the trainable variable /ema"},
		"an integer that depends on samples": {of(linear(func(scope *model.Scope, x *graph.Node) {
			add(scope.VariableWithValue("seen", int32(1)).SetTrainable(false),
				graph.ConvertDType(graph.ReduceAllSum(x), dtypes.Int32))
		})), "", "changes the variable /seen, of type Int32, by what is in a micro-batch"},
		"a type of no state": {with("small", int16(1)), "", "variable /small is of type Int16"},
		"a long name":        {with(strings.Repeat("x", 201), float32(1)), "", "of at most 200 bytes"},
		"names that look alike": {func(c *Config) {
			c.Model = linear(func(scope *model.Scope, x *graph.Node) {
				for _, path := range []string{"a\u00e9", "a\u00e8"} {
					scope.VariableWithValue(path, float32(1)).SetTrainable(false).NodeValue(x)
				}
			})
		}, "", `is named "a_" in the state: it must be unique`},
		"nothing to train": {of(func(_ *model.Scope, x *graph.Node) *graph.Node {
			return graph.Slice(x, graph.AxisRange(), graph.AxisRange(0, classes))
		}), "", "no trainable variable"},
		"no loss":             {func(c *Config) { c.Loss = nil }, "", "there is no loss: set Config.Loss"},
		"a freeze of nothing": {func(c *Config) { c.Tuning.Freeze = "words" }, "", `"words" matches no name`},
		"a weight of each sample": {func(c *Config) {
			c.Weight = func(labels []*graph.Node) *graph.Node { return labels[0] }
		}, "", "Config.Weight returns (Int32)[4, 1]: expected a scalar"},
		"a count of each sample": {func(c *Config) {
			c.Counts = []Count{func(labels, _ []*graph.Node) *graph.Node { return labels[0] }}
		}, "", "Config.Counts[0] returns (Int32)[4, 1]: expected a scalar"},
		"batch norm on go": {of(network{batchNorm: true}.build), "go", "--backend xla"},
		"max pool on go": {of(func(scope *model.Scope, x *graph.Node) *graph.Node {
			x = layers.Dense(scope, graph.MaxPool(graph.Reshape(x, -1, features, 1)).Window(2).Done(), true, classes)
			return graph.ReduceMax(x, 1)
		}), "go", "--backend xla"},
		"a closure that captures, on xla": {of(linear(loop)), "xla", "not part of the function"},
		"no model":                        {of(1), "", "Config.Model is a int"},
		"no inputs":                       {of(func(*model.Scope) *graph.Node { return nil }), "", "not a signature"},
		"two inputs": {of(func(_ *model.Scope, a, _ *graph.Node) *graph.Node { return a }), "",
			"takes 2 inputs"},
		"an optimizer of no name": {func(c *Config) {
			c.Optimizer, c.Params = nil, map[string]any{optimizer.ParamOptimizer: "momentum"}
		}, "", `"momentum"`},
	} {
		t.Run(name, func(t *testing.T) {
			c := network{}.config(nil, nil)
			row.change(&c)
			m, err := New(evenweave.Setup{Backend: cmp.Or(row.backend, "go"), MicroBatch: 4}, c)
			if err == nil {
				m.Close()
			} else if strings.Contains(err.Error(), "make setup") {
				t.Skipf("needs XLA's plug-in: %v", err)
			}
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v, expected an error with %q", err, row.says)
			}
		})
	}
}

// loop counts to 3, from what samples say.
func loop(scope *model.Scope, x *graph.Node) {
	g, seen := x.Graph(), scope.VariableWithValue("seen", float32(0)).SetTrainable(false)
	mean := graph.ReduceAllMean(x)
	scalar := shapes.Make(dtypes.Float32)
	under := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		return []*graph.Node{graph.LessThan(graph.Parameter(g, "total", scalar), graph.Const(g, float32(3)))}
	})
	more := graph.NewClosure(g, func(g *graph.Graph) []*graph.Node {
		return []*graph.Node{graph.Add(graph.Parameter(g, "total", scalar), graph.Add(graph.Abs(mean),
			graph.Const(g, float32(1))))}
	})
	seen.SetNodeValue(graph.While(under, more, graph.Const(g, float32(0)))[0])
}

// each is a metric whose value is one for each sample.
type each struct{ *metric.MeanMetric }

func (e each) UpdateGraph(scope *model.Scope, labels, predictions []*graph.Node) *graph.Node {
	return graph.BroadcastToDims(e.MeanMetric.UpdateGraph(scope, labels, predictions), 4)
}

// TestMetricsRefused: what measures batches, and not samples, is refused by name.
func TestMetricsRefused(t *testing.T) {
	for says, k := range map[string]metric.Interface{
		"metric Median is computed by Go": metric.NewMedianMetric("Median", "med", "median", nil, nil),
		"metric Last keeps nothing between batches": metric.NewBaseMetric("Last", "last", "last",
			func(_ *model.Scope, _, predictions []*graph.Node) *graph.Node {
				return graph.ReduceAllMean(predictions[0])
			},
			nil),
		"metric Near: panic: it is not ready": metric.NewMeanMetric("Near", "near", "near",
			func(*model.Scope, []*graph.Node, []*graph.Node) *graph.Node { panic("it is not ready") }, nil),
		"metric Each has the shape (Float32)[4]": each{metric.NewMeanMetric("Each", "each", "each",
			func(_ *model.Scope, _, predictions []*graph.Node) *graph.Node {
				return graph.ReduceAllMean(predictions[0])
			}, nil)},
	} {
		c := network{}.config(nil, nil)
		c.Metrics = []metric.Interface{k}
		m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4}, c)
		if err := m.CheckEvaluation(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("before a job: %v, expected an error with %q", err, says)
		}
		if err := m.Init(1); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Evaluate(t.Context(), data(t, 8)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, expected an error with %q", err, says)
		}
	}
}

// TestSamplesRefused: samples of another form than programs are compiled for are named.
func TestSamplesRefused(t *testing.T) {
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 2}, network{}.config(nil, nil))
	x, y := dataset.Of(make([]float32, 2*features), features), dataset.Of([]int32{0, 1}, 1)
	one := []float32{1, 1}
	for says, content := range map[string]any{
		"a batch of int": 1,
		"the data have 2 inputs, Config has 1": &dataset.Content{Inputs: []dataset.Flat{x, x},
			Labels: []dataset.Flat{y}, Weights: one},
		"inputs[0]: samples are int32[1], Config has float32[12]": &dataset.Content{Inputs: []dataset.Flat{y},
			Labels: []dataset.Flat{y}, Weights: one},
		"labels[0]: samples are float32[1], Config has int32[1]": &dataset.Content{Inputs: []dataset.Flat{x},
			Labels: []dataset.Flat{dataset.Of(one, 1)}, Weights: one},
		"labels[0]: 8 bytes: expected 1 samples of " +
			"4": &dataset.Content{Inputs: []dataset.Flat{dataset.Of(make([]float32,
			features), features)}, Labels: []dataset.Flat{y}, Weights: one[:1]},
		"sample 1 has weight 0.5": &dataset.Content{Inputs: []dataset.Flat{x}, Labels: []dataset.Flat{y},
			Weights: []float32{1, 0.5}},
	} {
		b := &evenweave.Batch{Samples: []int32{0, 1}, Content: content}
		if err := m.CheckBatch(b); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("before a job: %v, expected an error with %q", err, says)
		}
		_, err := m.Gradients(b, buffers(m))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, expected an error with %q", err, says)
		}
	}
}
