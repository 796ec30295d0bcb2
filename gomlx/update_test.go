package gomlx

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/initializer"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
)

// cut compiles the update of a model again, as at most n programs.
func cut(t *testing.T, m *Model, n int) {
	t.Helper()
	g, u, err := m.builder.training(m.setup.MicroBatch)
	if err != nil {
		t.Fatal(err)
	}
	g.Finalize()
	for _, p := range m.updating {
		if err := p.close(); err != nil {
			t.Fatal(err)
		}
	}
	m.updating = nil
	if err := m.compileUpdate(u, g, n); err != nil {
		t.Fatal(err)
	}
}

// delayed is an optimizer that subtracts the gradient of the step before. What it keeps is replaced without being read,
// and larger than the weight that is computed from it.
type delayed struct{}

func (delayed) Clear(*model.Scope) error { return nil }

func (delayed) UpdateGraph(scope *model.Scope, g *graph.Graph, loss *graph.Node) {
	grads := scope.BuildTrainableVariablesGradientsGraph(loss)
	for v := range scope.IterVariables() {
		if !v.Trainable || !v.InUseByGraph(g) {
			continue
		}
		twice := graph.Stack([]*graph.Node{grads[0], grads[0]}, 0)
		last := scope.Store().Scope(v.Path()).WithInitializer(initializer.Zero).
			VariableWithShape("last", twice.Shape()).SetTrainable(false)
		v.SetNodeValue(graph.Sub(v.NodeValue(g), graph.ReduceMean(last.NodeValue(g), 0)))
		last.SetNodeValue(twice)
		grads = grads[1:]
	}
}

// TestPartsOfAnUpdateChangeNothing: into however many programs an update is cut, and however many of them run at the
// same time, the state has the same bits.
func TestPartsOfAnUpdateChangeNothing(t *testing.T) {
	d := data(t, 1024)
	for _, row := range append(optimizers()[:3], trained{"delayed", network{}, delayed{}, nil}) { // Adam, AdamW, SGD
		t.Run(row.name, func(t *testing.T) {
			m := open(t, evenweave.Setup{MicroBatch: samples / 2, TotalSteps: 10},
				row.network.config(row.opt, row.params))
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
			var want [][]byte
			for _, row := range []struct{ parts, processors int }{{1, 1}, {4, 1}, {4, 3}, {4, 8}} {
				runtime.GOMAXPROCS(row.processors)
				if cut(t, m, row.parts); len(m.updating) != row.parts {
					t.Fatalf("%d parts, want %d", len(m.updating), row.parts)
				}
				if err := m.Init(1); err != nil {
					t.Fatal(err)
				}
				for i := range 6 {
					step(t, m, batches(t, d, i, samples, samples/2), i, true)
				}
				for i, tensor := range m.state {
					if row.parts == 1 {
						want = append(want, bytes.Clone(tensor.bytes))
					} else if !bytes.Equal(tensor.bytes, want[i]) {
						t.Errorf("by %d programs on %d processors %s has other bits", row.parts, row.processors,
							tensor.Name)
					}
				}
			}
		})
	}
}

// TestALargeModelTrainsOnEachBackend: one whose update is cut where the backend can do that.
func TestALargeModelTrainsOnEachBackend(t *testing.T) {
	for backend, parts := range map[string]int{"go": 1, "xla": 2} {
		t.Run(backend, func(t *testing.T) {
			c := Config{Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 1)}, Optimizer: optimizer.Adam().Done(),
				Model: func(s *model.Scope, x *graph.Node) *graph.Node {
					return layers.Dense(s.In("wide"), x, true, 3<<20) // 72 MiB of weights and moments
				},
				Loss: func(_, predictions []*graph.Node) *graph.Node { return predictions[0] }}
			m := open(t, evenweave.Setup{Backend: backend, MicroBatch: 1, TotalSteps: 10}, c)
			if len(m.updating) != parts {
				t.Errorf("an update of %d parts, want %d", len(m.updating), parts)
			}
			if err := m.Init(1); err != nil {
				t.Fatal(err)
			}
			before := bytes.Clone(m.state[0].bytes)
			b := &evenweave.Batch{Content: &dataset.Content{Weights: []float32{1}, Inputs: []dataset.Flat{
				{Type: evenweave.Float32, Shape: []int{1}, Bytes: []byte{0, 0, 128, 63}}}}}
			grads := make([][]float32, m.summed)
			for i, of := range m.state[:m.summed] {
				grads[i] = make([]float32, of.Elements())
			}
			if _, err := m.Gradients(b, grads); err != nil {
				t.Fatal(err)
			}
			if err := m.Update(grads, 0); err != nil || bytes.Equal(m.state[0].bytes, before) {
				t.Errorf("the update changed nothing, %v", err)
			}
		})
	}
}

// TestWhatIsCoupledIsOnePart: a norm over all gradients is taken once.
func TestWhatIsCoupledIsOnePart(t *testing.T) {
	c := network{}.config(optimizer.Adam().Done(), map[string]any{regularizer.ParamL2: 1e-3})
	c.ClipNorm = 0.1
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: samples}, c)
	_, u, err := m.builder.training(samples)
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[int]int{}
	for _, part := range u.split(4) {
		sizes[len(part)]++
	}
	// The two counts of steps, by scalars alone, are apart.
	if want := len(u.changed) - 2; sizes[want] != 1 || sizes[1] != 2 {
		t.Errorf("parts of sizes %v, want one of %d and two counts", sizes, want)
	}
}
