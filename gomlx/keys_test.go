package gomlx

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/checkpoint"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
)

// masks says whether micro-batches that differ in their keys alone have other gradients, and with equal keys the same.
func masks(t *testing.T, m *Model) {
	t.Helper()
	var grads [3]string
	for i, key := range []uint64{1, 2, 1} {
		b := batches(t, data(t, 16), 0, 16, 16)[0]
		b.Key = key
		all := buffers(m)
		if _, err := m.Gradients(b, all); err != nil {
			t.Fatal(err)
		}
		for _, g := range all {
			grads[i] += string(bytesOf(g))
		}
	}
	if grads[0] == grads[1] || grads[0] != grads[2] {
		t.Errorf("keys 1 and 2 give other gradients: %v; key 1 twice the same: %v", grads[0] != grads[1],
			grads[0] == grads[2])
	}
}

// TestMasksAreTheKeys: the key of a micro-batch is all its randomness.
func TestMasksAreTheKeys(t *testing.T) {
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, network{dropout: true}.config(nil, nil))
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	masks(t, m)
}

// TestTheGeneratorIsNotTrained where a model makes all variables trainable that there are, the generator's state too.
func TestTheGeneratorIsNotTrained(t *testing.T) {
	c := network{dropout: true}.config(optimizer.Adam().Done(), nil)
	c.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		logits := network{dropout: true}.build(scope, x)
		for v := range scope.Store().IterVariables() {
			v.SetTrainable(true)
		}
		return logits
	}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	step(t, m, batches(t, data(t, 16), 0, 16, 16), 0, true)
	masks(t, m)
}

// TestACheckpointOfTheTrainersIsAStart: one that holds the generator's state, which GoMLX's trainer would go on to
// train and so use one mask forever, gives its weights and nothing else.
func TestACheckpointOfTheTrainersIsAStart(t *testing.T) {
	c := network{dropout: true}.config(optimizer.Adam().Done(), nil)
	setup := evenweave.Setup{Backend: "go", MicroBatch: 16}
	m := open(t, setup, c)
	r := newReference(t, m)
	for i := range 2 {
		r.batch(t, batches(t, data(t, 64), i, 16, 16)[0])
	}
	if r.store.GetVariable(generatorPath()) == nil {
		t.Fatal("the trainer has no generator: this test has lost its subject")
	}
	dir := filepath.Join(t.TempDir(), "trainers")
	handler, err := checkpoint.Build(r.store).Dir(dir).Done()
	if err != nil {
		t.Fatal(err)
	}
	if err := handler.Save(); err != nil {
		t.Fatal(err)
	}
	c.Tuning.InitFrom = dir
	from := open(t, setup, c)
	if err := from.Init(2); err != nil {
		t.Fatal(err)
	}
	if differ, all, _ := r.compare(t, from, evenweave.Trained); differ > 0 || all == 0 {
		t.Errorf("%d of %d weights are not the checkpoint's", differ, all)
	}
	masks(t, from)
}

// TestTheOrderIsByPath: a store's order depends on how it came about.
func TestTheOrderIsByPath(t *testing.T) {
	c := network{}.config(optimizer.Adam().Done(), nil)
	c.Model = func(scope *model.Scope, x *graph.Node) *graph.Node {
		return layers.Dense(scope.In("a"), layers.Dense(scope.In("z"), x, true, hidden), true, classes)
	}
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, EvaluateOnly: true}, c)
	names := map[evenweave.Role][]string{}
	for _, v := range m.Tensors() {
		names[v.Role] = append(names[v.Role], v.Name)
	}
	if len(names[evenweave.Trained]) != 4 || !slices.IsSorted(names[evenweave.Trained]) ||
		!slices.IsSorted(names[evenweave.Kept]) {
		t.Errorf("the state is in the order %v", names)
	}
}

// TestLoopsMayDependOnSamples: what a closure captures is not among a node's inputs.
func TestLoopsMayDependOnSamples(t *testing.T) {
	c := network{}.config(nil, nil)
	c.Model = linear(loop)
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, EvaluateOnly: true}, c)
	for _, v := range m.Variables() {
		if v.Name == "seen" && v.Role != "averaged" {
			t.Errorf("what a loop makes of samples is %s", v.Role)
		}
	}
}
