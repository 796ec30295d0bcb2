package gomlx_test

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
	"evenweave/evenweavetest"
	"evenweave/gomlx"
)

// TestMain makes the test's binary a program too.
func TestMain(m *testing.M) { evenweavetest.Main(m, func() { cli.Main(sometimesNaN()) }) }

// sometimesNaN is a task whose loss is no number once an epoch: sample 77 has no input.
func sometimesNaN() *evenweave.Task {
	x, y := make([]float32, 512), make([]float32, 512)
	for i := range x {
		x[i] = float32(i%16)/8 - 1
		y[i] = 3*x[i] + 1
	}
	x[77] = float32(math.NaN())
	return &evenweave.Task{
		Name: "sometimes", Backends: gomlx.Backends("go"),
		Defaults: map[string]string{"global-batch": "32", "micro-batch": "8"},
		Data: func(string) (sets evenweave.Sets, err error) {
			set := func(from, to int) evenweave.Data {
				d, failed := dataset.InMemory([]dataset.Flat{dataset.Of(x[from:to], 1)},
					[]dataset.Flat{dataset.Of(y[from:to], 1)})
				if failed != nil {
					err = failed
				}
				return d
			}
			return evenweave.Sets{Train: set(0, 512), Test: set(256, 512)}, err
		},
		Model: func(setup evenweave.Setup) (evenweave.Model, error) {
			return gomlx.New(setup, gomlx.Config{
				Model: func(scope *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(scope, x, true, 1) },
				Loss:  loss.MeanSquaredError, Params: map[string]any{"learning_rate": 0.05},
				Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 1)},
				Labels: []shapes.Shape{shapes.Make(dtypes.Float32, 1)},
			})
		},
	}
}

// TestSkippedSteps: with --on-nonfinite skip a job of any number of processes goes on to the same weights, also where
// one is killed; without, it ends and says why.
func TestSkippedSteps(t *testing.T) {
	r := evenweavetest.SameWeights(t, "--backend", "go", "--on-nonfinite", "skip",
		"--epochs", "60")
	if loss := r.Figures["loss"]; !(loss < 0.1) || r.Step != 960 {
		t.Errorf("the loss after step %d is %v", r.Step, loss)
	}
	t.Logf("%d steps, 60 of them skipped: %+v", r.Step, r)
	out, err := exec.CommandContext(t.Context(), os.Args[0], "train", "--backend", "go", "--workers", "2", "--epochs",
		"1", "--dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "): the loss is not finite: training has diverged") {
		t.Errorf("a loss that is no number: %v\n%s", err, out)
	}
}
