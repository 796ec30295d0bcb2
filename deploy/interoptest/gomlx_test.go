package interoptest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/gomlx"
)

// gomlxCheckpoints is GoMLX's own reader of its checkpoints: the first version that Go's registry has with it.
const gomlxCheckpoints = "github.com/gomlx/gomlx/cmd/gomlx_checkpoints@v0.28.2"

// What Export writes, GoMLX's own program shows: each variable with type and shape, and the hyperparameters.
func TestGoMLXCheckpoints(t *testing.T) {
	asked := os.Getenv("EVENWEAVE_TEST_INTEROP")
	if asked == "" {
		t.Skip("fetches GoMLX's program: make test-interop")
	}
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // it is built, with all that it is made of
	defer cancel()
	install := exec.CommandContext(ctx, "go", "install", gomlxCheckpoints)
	install.Dir, install.Env = dir, append(os.Environ(), "GOBIN="+dir)
	if out, err := install.CombinedOutput(); err != nil && asked == "required" {
		t.Fatalf("%v\n%s", err, out)
	} else if err != nil {
		t.Skipf("%s cannot be had: %v\n%s", gomlxCheckpoints, err, out)
	}
	m, err := gomlx.New(evenweave.Setup{Backend: "go", MicroBatch: 2}, gomlx.Config{
		Model: func(scope *model.Scope, x *graph.Node) *graph.Node {
			y := layers.Dense(scope.In("half"), graph.ConvertDType(x, dtypes.BFloat16), true, 5)
			return layers.Dense(scope.In("whole"), graph.ConvertDType(y, dtypes.Float32), true, 1)
		},
		Loss: loss.MeanSquaredError, Optimizer: optimizer.Adam().Done(), Params: map[string]any{"learning_rate": 0.25},
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 3)}, Labels: []shapes.Shape{shapes.Make(dtypes.Float32, 1)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	exported := filepath.Join(dir, "exported")
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Export(exported); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOMLX_BACKEND", "go") // the program computes the size of values
	shown, err := finish(t, filepath.Join(dir, "gomlx_checkpoints"), "-summary", "-params", "-vars", exported)
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	t.Log(shown)
	for _, line := range []string{`learning_rate\W+float64\W+0\.25\b`, `/half/dense\W+weights\W+BFloat16\W+3, 5\W+15\b`,
		`/whole/dense\W+biases\W+Float32\W+1\W+1\b`, `global_step\W+Int64\W+1\W+8 B\W+0\b`} {
		if !regexp.MustCompile(line).MatchString(shown) {
			t.Errorf("no line has %q", line)
		}
	}
}
