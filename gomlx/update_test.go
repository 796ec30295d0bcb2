package gomlx

import (
	"bytes"
	"testing"

	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
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

// TestPartsOfAnUpdateChangeNothing: into however many programs an update is cut, the state has the same bits.
func TestPartsOfAnUpdateChangeNothing(t *testing.T) {
	d := data(t, 1024)
	for _, row := range optimizers()[:3] { // Adam, AdamW, SGD
		t.Run(row.name, func(t *testing.T) {
			m := open(t, evenweave.Setup{MicroBatch: samples / 2, TotalSteps: 10},
				row.network.config(row.opt, row.params))
			var want [][]byte
			for _, n := range []int{1, 4} {
				if cut(t, m, n); len(m.updating) != n {
					t.Fatalf("%d parts, want %d", len(m.updating), n)
				}
				if err := m.Init(1); err != nil {
					t.Fatal(err)
				}
				for i := range 6 {
					step(t, m, batches(t, d, i, samples, samples/2), i, true)
				}
				for i, tensor := range m.state {
					if n == 1 {
						want = append(want, bytes.Clone(tensor.bytes))
					} else if !bytes.Equal(tensor.bytes, want[i]) {
						t.Errorf("by %d programs %s has other bits", n, tensor.Name)
					}
				}
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
