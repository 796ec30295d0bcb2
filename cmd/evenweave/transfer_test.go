package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/internal/state"
)

// TestTransfer: weights move from one job to another, on other classes; what is frozen keeps its bits, the rest learns,
// and the worker count changes nothing.
func TestTransfer(t *testing.T) {
	data := needData(t)
	job := func(dir string, more ...string) []string {
		return append([]string{"train", "-o", "json", "--data", data, "--dir", dir, "--samples", "100",
			"--global-batch", "32", "--micro-batch", "8",
			"--recipe", "augment", "--evaluate=false", "--steps", "6"}, more...)
	}
	source := t.TempDir()
	first := train(t, job(source, "--classes", "0-4", "--workers", "1")...)

	dirs := []string{t.TempDir(), t.TempDir()}
	var got []doneEvent
	for i, workers := range []string{"1", "3"} {
		got = append(got, train(t, job(dirs[i], "--classes", "5-9", "--init-from", source, "--freeze",
			"conv1/*,conv2/kernel", "--workers", workers)...))
	}
	if got[0].Weights != got[1].Weights || got[0].Print != got[1].Print {
		t.Errorf("1 worker gives %s, 3 give %s", got[0].Weights, got[1].Weights)
	}
	load := func(dir string) *checkpoint.Checkpoint {
		c, err := checkpoint.Load(t.Context(), newest(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	before, after := load(source), load(dirs[0])
	for _, tensor := range cnn.Tensors(0) {
		frozen := strings.Contains(tensor.Name, "conv1/") || strings.HasSuffix(tensor.Name, "conv2/kernel")
		then, err1 := before.Float32s(tensor.Name)
		now, err2 := after.Float32s(tensor.Name)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		switch {
		case frozen && strings.HasPrefix(tensor.Name, "adam/"):
			if slices.ContainsFunc(now, func(x float32) bool { return x != 0 }) {
				t.Errorf("%s is frozen and has moments", tensor.Name)
			}
		case frozen == !slices.Equal(now, then):
			t.Errorf("%s: frozen: %v, but changed: %v", tensor.Name, frozen, frozen)
		}
	}

	// The rule of docs/exactness.md: the first step has exponents 0, whatever the weights are.
	files, err := filepath.Glob(filepath.Join(dirs[0], "checkpoints", "step-00000000-*.ckpt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("checkpoints of step 0: %q, %v", files, err)
	}
	initial, err := checkpoint.Load(t.Context(), files[0])
	if err != nil {
		t.Fatal(err)
	}
	zero := func(c *checkpoint.Checkpoint) bool {
		b, err := c.Bytes(state.Exponents)
		if err != nil || len(b) == 0 {
			t.Fatal(len(b), err)
		}
		return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 })
	}
	if !zero(initial) || zero(before) || zero(after) {
		t.Errorf("the exponents are zero: of the job that the weights are from %v, of step 0 %v, after 6 steps %v",
			zero(before), zero(initial), zero(after))
	}
	then, err1 := before.Float32s("conv2/kernel")
	now, err2 := initial.Float32s("conv2/kernel")
	if err1 != nil || err2 != nil || !slices.Equal(now, then) {
		t.Errorf("the weights of step 0 are not those of --init-from: %v, %v", err1, err2)
	}

	for _, refused := range []struct {
		args []string
		says string
	}{
		{job(dirs[0], "--classes", "5-9", "--freeze", "conv1/*,conv2/kernel"), "init: here , there " + first.Weights},
		{job(dirs[0], "--classes", "5-8", "--init-from", source, "--freeze", "conv1/*,conv2/kernel"),
			"classes: here 5-8, there 5-9"},
		{job(t.TempDir(), "--init-from", filepath.Join(data, "none.ckpt")), "--init-from"},
		{job(t.TempDir(), "--init-from", damaged(t, source)), "--init-from"},
	} {
		if out, err := program(t, refused.args...).CombinedOutput(); err == nil ||
			!strings.Contains(string(out), refused.says) {
			t.Errorf("%v: %v, want %q in\n%s", refused.args, err, refused.says, out)
		}
	}
}

// newest is the path of the newest checkpoint of a run.
func newest(t *testing.T, dir string) string {
	t.Helper()
	entry, err := checkpoint.Newest(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return entry.Path
}

// damaged copies the newest checkpoint of a run and flips a bit of it.
func damaged(t *testing.T, dir string) string {
	b, err := os.ReadFile(newest(t, dir))
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	copied := filepath.Join(t.TempDir(), "damaged.ckpt")
	if err := os.WriteFile(copied, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
