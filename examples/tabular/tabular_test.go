package main

import (
	"bytes"
	"path/filepath"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/cli"
	"evenweave/evenweavetest"
)

func TestMain(m *testing.M) { evenweavetest.Main(m, main) }

// The number of workers changes nothing but the speed, embeddings and a killed worker included.
func TestWorkerCountChangesNothing(t *testing.T) {
	flats := filepath.Join(t.TempDir(), "flats.csv")
	if err := generate(t.Context(), &evenweave.Invocation{Args: []string{flats}}); err != nil {
		t.Fatal(err)
	}
	r := evenweavetest.SameWeights(t, "--data", flats, "--epochs", "8")
	if mae := r.Figures["mae"]; !(mae > 9 && mae < 40) {
		t.Errorf("the mean absolute error is %v", mae)
	}
}

// A run goes out as a checkpoint of GoMLX, and another starts from it: what is frozen stays as it was.
func TestFineTuning(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	flats, first, exported := filepath.Join(dir, "flats.csv"), filepath.Join(dir, "first"), filepath.Join(dir, "model")
	if err := generate(t.Context(), &evenweave.Invocation{Args: []string{flats}}); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) {
		t.Helper()
		if err := cli.Run(t.Context(), task(), args...); err != nil {
			t.Fatal(err)
		}
	}
	run("train", "--data", flats, "--dir", first, "--workers", "1", "--steps", "20")
	run("to-gomlx", "--dir", first, exported)
	tuned := filepath.Join(dir, "tuned")
	run("train", "--data", flats, "--dir", tuned, "--workers", "1", "--steps", "20", "--init-from", exported,
		"--freeze", "words/*,hidden0/*/*")
	before, after := weights(t, first), weights(t, tuned)
	for name, frozen := range map[string]bool{"words/embeddings": true, "hidden0/dense/weights": true,
		"hidden1/dense/weights": false, "output/dense/weights": false} {
		if same := bytes.Equal(before[name], after[name]); same != frozen || len(before[name]) == 0 {
			t.Errorf("%s of %d bytes: unchanged is %v", name, len(before[name]), same)
		}
	}
	// from a run's own checkpoint too, without a way through GoMLX
	again := filepath.Join(dir, "again")
	run("train", "--data", flats, "--dir", again, "--workers", "1", "--steps", "20", "--init-from", first,
		"--freeze", "words/*,hidden0/*/*")
	if other := weights(t, again); !bytes.Equal(other["output/dense/weights"], after["output/dense/weights"]) {
		t.Error("a checkpoint of GoMLX and one of Evenweave with the same weights are other starts")
	}
	err := cli.Run(t.Context(), task(), "train", "--data", flats, "--dir", tuned, "--workers", "1", "--steps", "20",
		"--freeze", "words/*,hidden0/*/*")
	if err == nil {
		t.Error("a run goes on from other weights than it started from")
	}
}

// weights reads the tensors of a run's newest checkpoint.
func weights(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	newest, err := checkpoint.Newest(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Load(t.Context(), newest.Path)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, tensor := range c.Manifest.Tensors {
		if all[tensor.Name], err = c.Bytes(tensor.Name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
