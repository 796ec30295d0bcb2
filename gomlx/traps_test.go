package gomlx

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/gomlx/gomlx/ml/train/optimizer/cosineschedule"

	"evenweave"
	"evenweave/dataset"
	"evenweave/evenweavetest"
)

// TestVerify has the trainer's own check of exactness look at what is hardest to keep exact.
func TestVerify(t *testing.T) {
	for _, row := range []struct {
		backend string
		network
	}{{"xla", network{dropout: true, batchNorm: true, cosine: true}}, {"go", network{dropout: true}}} {
		t.Run(row.backend, func(t *testing.T) {
			open(t, evenweave.Setup{Backend: row.backend, MicroBatch: 1, EvaluateOnly: true}, row.config(nil, nil))
			d := data(t, 50) // the last micro-batch has 2 samples
			evenweavetest.Verify(t, &evenweave.Task{
				Name: "gomlx", Backends: Backends(),
				Data: func(string) (evenweave.Sets, error) { return evenweave.Sets{Train: d}, nil },
				Model: func(setup evenweave.Setup) (evenweave.Model, error) {
					return New(setup, row.config(nil, map[string]any{cosineschedule.ParamCycles: 1,
						optimizer.ParamLearningRate: 0.01}))
				},
			}, evenweavetest.Config{Backend: row.backend, MicroBatch: 8, Steps: 2})
		})
	}
}

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	said string
}

func (r *recorder) Errorf(format string, args ...any) { r.said += fmt.Sprintf(format, args...) }

// TestVerifyNamesTheTensor of a model that is not exact, and where it differs: this one counts how often it was built.
func TestVerifyNamesTheTensor(t *testing.T) {
	built, d, r := 0, data(t, 50), &recorder{TB: t}
	c := network{}.config(nil, nil)
	c.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		built++
		noise := scope.VariableWithValue("noise", float32(1)).NodeValue(x)
		more := graph.MulScalar(noise, built)
		train.AddRegularizationLoss(graph.Sub(more, graph.StopGradient(more))) // 0, with a gradient
		return network{}.build(scope, x)
	}
	evenweavetest.Verify(r, &evenweave.Task{
		Name: "inexact", Backends: Backends(),
		Data:  func(string) (evenweave.Sets, error) { return evenweave.Sets{Train: d}, nil },
		Model: func(setup evenweave.Setup) (evenweave.Model, error) { return New(setup, c) },
	}, evenweavetest.Config{Backend: "go", MicroBatch: 8})
	if want := "step 1, micro-batch 0: the gradient of noise differs in a second model"; !strings.Contains(r.said,
		want) {
		t.Errorf("it says %q, expected %q", r.said, want)
	}
}

func TestRoles(t *testing.T) {
	m := open(t, evenweave.Setup{MicroBatch: 4, EvaluateOnly: true},
		network{dropout: true, batchNorm: true, cosine: true}.
			config(optimizer.Adam().Done(), map[string]any{cosineschedule.ParamCycles: 1,
				optimizer.ParamLearningRate: 0.01}))
	got := map[string]string{}
	for _, v := range m.Variables() {
		got[v.Name] = v.Role + " " + string(v.Type)
	}
	for name, want := range map[string]string{
		"dense/dense/weights": "trained float32", "norm/batch_normalization/scale": "trained float32",
		"norm/batch_normalization/mean": "averaged float32", "norm/batch_normalization/avg_weight": "equal float32",
		"global_step": "kept int64", "trainer/train_last_global_step": "kept int64",
		"optimizers/learning_rate": "equal float32", nameOf(generatorPath()): "generator uint64",
		"optimizers/cosine_schedule/step": "equal float32", "AdamOptimizer/step": "kept float32",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, expected %q; all: %v", name, got[name], want, got)
		}
	}
	if m.Schedule() == "" {
		t.Error("the learning rate depends on the last step, and Schedule does not say so")
	}
	if l := m.Layers(); l[0].Name != "input0" || l[1].Parameters != features*hidden+hidden {
		t.Errorf("layers %v", l)
	}
}

// TestTheLastStepIsTheJobs: a schedule to the last step ends at its lowest rate.
func TestTheLastStepIsTheJobs(t *testing.T) {
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 8, TotalSteps: 5}, network{cosine: true}.
		config(nil, map[string]any{cosineschedule.ParamCycles: 1, optimizer.ParamLearningRate: 0.01}))
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	d := data(t, 40)
	for i := range 5 {
		step(t, m, batches(t, d, i, 8, 8), i, true)
	}
	if rate := m.byPath["/optimizers/learning_rate"].flat.([]float32)[0]; rate > 0.002 {
		t.Errorf("the rate of the last of 5 steps is %v, with the rate 0.01 at the first", rate)
	}
}

// TestOnceAStep: what the model advances for each micro-batch alike moves once a step, whatever their number.
func TestOnceAStep(t *testing.T) {
	m := open(t, evenweave.Setup{MicroBatch: 4}, network{cosine: true, batchNorm: true}.
		config(nil, map[string]any{cosineschedule.ParamPeriodSteps: 7, optimizer.ParamLearningRate: 0.01}))
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	d := data(t, 64)
	for i := range 3 {
		step(t, m, batches(t, d, i, 16, 4), i, true)
	}
	for _, path := range []string{"/optimizers/cosine_schedule/step", "/norm/batch_normalization/avg_weight"} {
		if n := m.byPath[path].flat.([]float32)[0]; n != 3 {
			t.Errorf("%s is %v after 3 steps of 4 micro-batches", path, n)
		}
	}
}

// TestInitialValuesAreTheSeeds: a seed of another type would be taken as 0, and none would be random.
func TestInitialValuesAreTheSeeds(t *testing.T) {
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4}, network{dropout: true}.config(nil, nil))
	values := func(seed uint64) string {
		if err := m.Init(seed); err != nil {
			t.Fatal(err)
		}
		return string(m.byPath["/dense/dense/weights"].bytes)
	}
	one, again, two := values(1), values(1), values(2)
	if one != again || one == two {
		t.Errorf("seed 1 twice: equal %v; seeds 1 and 2: equal %v", one == again, one == two)
	}
}

// TestFewerSamples: a micro-batch of 5 samples and padding is that of 5 samples, for losses and batch normalisation.
func TestFewerSamples(t *testing.T) {
	c := network{batchNorm: true, dropout: false}.config(nil, nil)
	m, five := open(t, evenweave.Setup{MicroBatch: 8}, c), open(t, evenweave.Setup{MicroBatch: 5}, c)
	d := data(t, 5)
	var grads [2][][]float32
	for i, m := range []*Model{m, five} {
		if err := m.Init(3); err != nil {
			t.Fatal(err)
		}
		grads[i] = buffers(m)
		b := batches(t, d, 0, 5, m.setup.MicroBatch)[0]
		s, err := m.Gradients(b, grads[i])
		if err != nil || s.Weight != 5 {
			t.Fatalf("%+v, %v", s, err)
		}
	}
	for i := range grads[0] {
		if string(bytesOf(grads[0][i])) != string(bytesOf(grads[1][i])) {
			t.Errorf("%s differs", m.state[i].Name)
		}
	}
}

// TestTypes: parameters of 16 and 64 bits, an optimizer of its own type, several inputs and labels, a loss of the
// model's.
func TestTypes(t *testing.T) {
	for _, dtype := range []dtypes.DType{dtypes.BFloat16, dtypes.Float64} {
		t.Run(dtype.String(), func(t *testing.T) {
			m := open(t, evenweave.Setup{MicroBatch: 4}, Config{
				Model: func(scope *model.Scope, spec any, in []*graph.Node) {
					x := graph.ConvertDType(graph.Concatenate(in[:2], -1), dtype)
					x = layers.Dense(scope.In("%s", spec), x, false, 1)
					wanted := graph.ConvertDType(in[2], dtype)
					train.AddMainLoss(graph.ReduceAllMean(graph.Square(graph.Sub(x, wanted))))
				},
				Spec: "named", Optimizer: optimizer.StochasticGradientDescent().WithDecay(false),
				Params: map[string]any{optimizer.ParamLearningRate: 0.1},
				Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 2), shapes.Make(dtypes.Float32, 1),
					shapes.Make(dtypes.Float32, 1)},
			})
			if err := m.Init(1); err != nil {
				t.Fatal(err)
			}
			d, err := dataset.InMemory([]dataset.Flat{dataset.Of([]float32{1, 0, 0, 1, 1, 1, 0, 0}, 2),
				dataset.Of([]float32{1, 1, 0, 0}, 1), dataset.Of([]float32{2, 1, 2, 0}, 1)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var first, last float64
			for i := range 30 {
				last = step(t, m, batches(t, d, i, 4, 4), i, true)
				if i == 0 {
					first = last
				}
			}
			if !(last < first/2) || m.state[0].Type != types()[dtype] || m.state[0].Name != "named/dense/weights" {
				t.Errorf("the loss went from %v to %v with %v", first, last, m.Tensors())
			}
		})
	}
}

// TestWeights: tokens are weighed by what the labels say, in whole numbers or fractions.
func TestWeights(t *testing.T) {
	c := network{}.config(nil, nil)
	c.Labels = append(c.Labels, shapes.Make(dtypes.Float32))
	c.Loss = func(labels, predictions []*graph.Node) *graph.Node {
		each := graph.Neg(graph.ReduceSum(graph.Mul(graph.LogSoftmax(predictions[0]),
			graph.OneHot(graph.Squeeze(labels[0], -1), classes, dtypes.Float32)), -1))
		return graph.Div(graph.ReduceAllSum(graph.Mul(each, labels[1])), graph.ReduceAllSum(labels[1]))
	}
	c.Weight = func(labels []*graph.Node) *graph.Node { return graph.ReduceAllSum(labels[1]) }
	x, y := make([]float32, 4*features), []int32{0, 1, 2, 3}
	for i := range x {
		x[i] = float32(i%7) - 3
	}
	for _, row := range []struct {
		weights   []float32
		fractions bool
		weight    int64
		says      string
	}{
		{[]float32{1, 0, 3, 1}, false, 5, ""}, {[]float32{0, 0, 0, 0}, false, 0, ""},
		{[]float32{0.5, 0.25, 0, 1}, false, 0, "Config.Fractions"}, {[]float32{0.5, 0.25, 0, 1}, true, 448, ""},
		{[]float32{-1, 0, 0, 0}, false, 0, "from 0 on"},
	} {
		c.Fractions = row.fractions
		m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4}, c)
		if err := m.Init(1); err != nil {
			t.Fatal(err)
		}
		d, err := dataset.InMemory([]dataset.Flat{dataset.Of(x, features)},
			[]dataset.Flat{dataset.Of(y, 1), dataset.Of(row.weights)})
		if err != nil {
			t.Fatal(err)
		}
		grads := buffers(m)
		s, err := m.Gradients(batches(t, d, 0, 4, 4)[0], grads)
		if row.says != "" {
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("%v: %v, expected an error with %q", row.weights, err, row.says)
			}
			continue
		}
		if err != nil || s.Weight != row.weight || math.IsNaN(s.Loss) || row.weight == 0 && grads[0][0] != 0 {
			t.Errorf("%v: %+v, %v, gradient %v", row.weights, s, err, grads[0][0])
		}
	}
}
