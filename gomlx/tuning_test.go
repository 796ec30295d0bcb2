package gomlx

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
)

// TestTuning: a run starts from a checkpoint of GoMLX or Evenweave, which the hash of what it holds names.
func TestTuning(t *testing.T) {
	c := network{}.config(nil, map[string]any{optimizer.ParamLearningRate: 0.1})
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, c)
	first := m.byPath["/dense/dense/weights"]
	hashes := map[string][]string{}
	for _, seed := range []uint64{1, 1, 2} {
		if err := m.Init(seed); err != nil {
			t.Fatal(err)
		}
		want, exported, run := string(first.bytes), filepath.Join(t.TempDir(), "exported"), t.TempDir()
		file, err := Save(t.Context(), m, run)
		if err := errors.Join(err, m.Export(exported)); err != nil {
			t.Fatal(err)
		}
		for kind, from := range map[string]string{"GoMLX": exported, "run": run, "file": file} {
			tuning := Tuning{InitFrom: from}
			if notes, err := tuning.Prepare(t.Context()); err != nil || len(notes) != 1 || len(tuning.Init) != 64 {
				t.Fatalf("%s: hash %q, %v, %v", kind, tuning.Init, notes, err)
			}
			hashes[kind] = append(hashes[kind], tuning.Init)
			m.config.Tuning = tuning
			if err := m.Init(7); err != nil || string(first.bytes) != want {
				t.Errorf("%s: it starts from other weights (%v)", kind, err)
			}
			m.config.Tuning.Init = strings.Repeat("0", 64)
			if err := m.Init(7); err == nil || !strings.Contains(err.Error(), "something has written to it") {
				t.Errorf("%s: it has changed since it was hashed: %v", kind, err)
			}
			if tuning.InitFrom = file; kind == "run" && m.config.Tuning.InitFrom != file {
				t.Errorf("the run directory means %s, expected %s", m.config.Tuning.InitFrom, file)
			}
			m.config.Tuning = Tuning{}
		}
	}
	for kind, h := range hashes {
		if h[0] != h[1] || h[0] == h[2] {
			t.Errorf("%s: hashes of seeds 1, 1 and 2: %q", kind, h)
		}
	}
	if none := (&Tuning{Init: "old"}); !prepares(t, none) || none.Init != "" {
		t.Errorf("no checkpoint has the hash %q", none.Init)
	}
	if prepares(t, &Tuning{InitFrom: "/nowhere"}) {
		t.Error("a directory that is not there has a hash")
	}
}

func prepares(t *testing.T, tuning *Tuning) bool {
	_, err := tuning.Prepare(t.Context())
	return err == nil
}

// TestTuningOfAnotherTask: tensors of equal names are taken, those of another shape or type refused by name.
func TestTuningOfAnotherTask(t *testing.T) {
	setup := evenweave.Setup{Backend: "go", MicroBatch: 16}
	m := open(t, setup, network{}.config(nil, map[string]any{optimizer.ParamLearningRate: 0.1}))
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	run := t.TempDir()
	if _, err := Save(t.Context(), m, run); err != nil {
		t.Fatal(err)
	}
	for says, other := range map[string]func(*model.Scope, *graph.Node) *graph.Node{
		"its tensor dense/dense/biases is float32[24], the model's float32[3]": func(scope *model.Scope,
			x *graph.Node) *graph.Node {
			return layers.Dense(scope.In("output"), layers.Dense(scope.In("dense"), x, true, 3), true, classes)
		},
		"has none of the model's variables: head/dense/biases, head/dense/weights": func(scope *model.Scope,
			x *graph.Node) *graph.Node {
			return layers.Dense(scope.In("head"), x, true, classes)
		},
		"": func(scope *model.Scope, x *graph.Node) *graph.Node {
			known := layers.Dense(scope.In("dense"), x, true, hidden)
			return layers.Dense(scope.In("head"), known, true, classes)
		},
	} {
		c := network{}.config(nil, map[string]any{optimizer.ParamLearningRate: 0.1})
		c.Model, c.Tuning = other, Tuning{InitFrom: run, Freeze: "dense/*/*"}
		if says != "" {
			c.Tuning.Freeze = ""
		}
		tuned := open(t, setup, c)
		err := tuned.Init(2)
		if says == "" {
			if same := string(tuned.byPath["/dense/dense/weights"].bytes) ==
				string(m.byPath["/dense/dense/weights"].bytes); err != nil || !same {
				t.Errorf("the layer that both have is taken: %v, %v", same, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, expected %q", err, says)
		}
	}
}
