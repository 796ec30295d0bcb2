package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
	"evenweave/evenweavetest"
	"evenweave/gomlx"
)

func TestMain(m *testing.M) { evenweavetest.Main(m, main) }

// tiny is a network that trains in seconds, on the text of this program.
func tiny(more ...string) []string {
	return append([]string{"--data", ".", "--backend", "go", "--layers", "1", "--width", "8", "--heads", "2",
		"--context", "8", "--global-batch", "32", "--set", "transformer_dropout=0.1;learning_rate=0.01"}, more...)
}

// The number of workers changes nothing but the speed, dropout and a killed worker included.
func TestWorkerCountChangesNothing(t *testing.T) {
	r := evenweavetest.SameWeights(t, tiny("--steps", "100")...)
	if loss := r.Figures["loss"]; !(loss > 0 && loss < 4) {
		t.Errorf("loss %v after training, that of a guess is 5.5", loss)
	}
}

// The network knows the order of bytes: GoMLX's transformer has no positions unless it is given some.
func TestOrderMatters(t *testing.T) {
	o := &options{Layers: 1, Width: 8, Heads: 2, Context: 4, Params: gomlx.Params{}}
	m, err := o.model(evenweave.Setup{Backend: "go", MicroBatch: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	var logits [2][]float32
	for i, text := range [][]int32{{1, 2, 3, 9}, {2, 1, 3, 9}} {
		out, err := m.(*gomlx.Model).Predict(dataset.Of(text, 4))
		if err != nil {
			t.Fatal(err)
		}
		logits[i] = dataset.Values[float32](out[0])[3*vocabulary:]
	}
	most := 0.0
	for i, l := range logits[0] {
		most = max(most, math.Abs(float64(l-logits[1][i])))
	}
	if most < 1e-4 {
		t.Errorf("two bytes in another order change what follows by %v at most", most)
	}
}

// A text is gone on with from a checkpoint alone, the same for the same seed; another hyperparameter is another job.
func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	if err := cli.Run(t.Context(), task(), append([]string{"train", "--workers", "1", "--dir", dir},
		tiny("--steps", "3")...)...); err != nil {
		t.Fatal(err)
	}
	var texts [3]string
	for i, seed := range []string{"1", "1", "2"} {
		texts[i] = printed(t, "generate", "--dir", dir, "--seed", seed, "--tokens", "20", "package main")
	}
	if texts[0] != texts[1] || texts[0] == texts[2] || !strings.HasPrefix(texts[0], "package main") ||
		len(texts[0]) != len("package main")+20+1 {
		t.Errorf("%q", texts)
	}
	err := cli.Run(t.Context(), task(), append([]string{"train", "--workers", "1", "--dir", dir},
		tiny("--steps", "3", "--set", "learning_rate=0.02")...)...)
	if err == nil || !strings.Contains(err.Error(), "set learning_rate: here 0.02, there 0.01") {
		t.Errorf("a job goes on with another learning rate: %v", err)
	}
	err = cli.Run(t.Context(), task(), "train", "--set", "lerning_rate=1")
	if err == nil || !strings.Contains(err.Error(), "the nearest are learning_rate") {
		t.Errorf("a hyperparameter that is not there: %v", err)
	}
}

// printed is what a command prints.
func printed(t *testing.T, args ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	before := os.Stdout
	os.Stdout = out
	err = cli.Run(t.Context(), task(), args...)
	os.Stdout = before
	text, other := os.ReadFile(name)
	if err != nil || other != nil || out.Close() != nil {
		t.Fatalf("%v: %v, %v", args, err, other)
	}
	return string(text)
}
