package gomlx

import (
	"encoding/binary"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/checkpoint"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx/backend"
)

// TestCheckpointsOfGoMLX: a state goes out to GoMLX's trainer and comes back.
func TestCheckpointsOfGoMLX(t *testing.T) {
	c := network{dropout: true, cosine: true}.config(optimizer.Adam().Done(),
		map[string]any{optimizer.ParamLearningRate: 0.01, "cosine_schedule_steps": 7})
	m, d := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, c), data(t, 64)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		step(t, m, batches(t, d, i, 16, 16), i, true)
	}
	dir := filepath.Join(t.TempDir(), "exported")
	if err := m.Export(dir); err != nil {
		t.Fatal(err)
	}
	if err := m.Export(dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("exported over another checkpoint: %v", err)
	}
	dir = filepath.Join(t.TempDir(), "by the command")
	export := func(m evenweave.Model) error {
		return ExportCommand().Run(t.Context(), &evenweave.Invocation{Args: []string{dir},
			Loaded: &evenweave.Loaded{Model: m}})
	}
	if err := export(m); err != nil {
		t.Fatal(err)
	}
	if err := export(nil); err == nil || !strings.Contains(err.Error(), "no method Export") {
		t.Errorf("a model that is none of GoMLX: %v", err)
	}

	c.Tuning.InitFrom = dir
	from := open(t, evenweave.Setup{Backend: "go", MicroBatch: 16}, c)
	if err := from.Init(2); err != nil {
		t.Fatal(err)
	}
	for i, s := range from.state {
		if equal := string(s.bytes) == string(m.state[i].bytes); s.Role == evenweave.Trained && !equal {
			t.Errorf("%s is not the checkpoint's", s.Name)
		}
	}
	if n := from.byPath["/global_step"].flat.([]int64)[0]; n != 0 {
		t.Errorf("a new job begins at step %d", n)
	}

	store, err := from.Store() // with the parameters; its variables make place for the checkpoint's
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range from.state {
		if v := store.GetVariable(s.path); v == nil || v.Trainable != (s.Role == evenweave.Trained) {
			t.Errorf("%s, which is %s, is in the store as %v", s.Name, s.Role, v)
		}
	}
	if err := store.DeleteVariablesInScope("/"); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Load(store).Dir(dir).Done(); err != nil {
		t.Fatal(err)
	}
	r := newReference(t, from)
	r.store, r.trainer = store, r.trainer.SetStore(store)
	states := map[string]bool{}
	for range 3 {
		r.batch(t, batches(t, d, 3, 16, 16)[0])
		generator := store.GetVariable(generatorPath())
		if generator.Trainable {
			t.Error("the trainer trains its generator's state")
		}
		states[generator.MustValue().String()] = true
	}
	if step := optimizer.GetGlobalStep(store); step != 6 || len(states) != 3 {
		t.Errorf("the trainer is at step %d, expected 6; its generator had %d states in 3 steps", step, len(states))
	}

	for dir, says := range map[string]string{"/nowhere": "no such file", t.TempDir(): "init-from"} {
		from.config.Tuning.InitFrom = dir
		if err := from.Init(1); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("InitFrom %s: %v, expected an error with %q", dir, err, says)
		}
	}
}

// TestFreeze: what is frozen keeps its values, and gets no gradient.
func TestFreeze(t *testing.T) {
	c := network{batchNorm: true}.config(nil, map[string]any{optimizer.ParamLearningRate: 0.1})
	c.Tuning.Freeze = "dense/*/*, norm/*/*"
	m, d := open(t, evenweave.Setup{MicroBatch: 16}, c), data(t, 64)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	values := func() (all []string) {
		for _, s := range m.state {
			all = append(all, string(s.bytes))
		}
		return all
	}
	before := values()
	step(t, m, batches(t, d, 0, 64, 16), 0, true)
	for i, now := range values() {
		name := m.state[i].Name
		frozen := strings.HasPrefix(name, "dense/") || strings.HasSuffix(name, "/scale") ||
			strings.HasSuffix(name, "/offset")
		if changed := now != before[i]; strings.HasPrefix(name, "output/") && !changed || frozen && changed {
			t.Errorf("%s: changed %v", name, changed)
		}
	}
	for freeze, says := range map[string]string{"nothing/*": "matches no name", "[": "syntax error",
		"*/*/*": "nothing to train"} {
		c := network{}.config(nil, nil)
		c.Tuning.Freeze = freeze
		if _, err := New(evenweave.Setup{Backend: "go", MicroBatch: 1}, c); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, expected an error with %q", freeze, err, says)
		}
	}
}

// apart is a device that shares no memory with the host, as a GPU.
type apart struct{ compute.Backend }

func (apart) HasSharedBuffers() bool { return false }

// TestDevicesApart: the state is copied where memory is not shared, and computes the same.
func TestDevicesApart(t *testing.T) {
	c := network{dropout: true}.config(optimizer.Adam().Done(), nil)
	var states [2]string
	var predicted [2][]byte
	d := data(t, 20)
	for i := range states {
		device, _, _, err := backend.Open("go")
		if err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			device = apart{device}
		}
		function, err := c.signature()
		if err != nil {
			t.Fatal(err)
		}
		m, err := newModel(evenweave.Setup{Context: t.Context(), MicroBatch: 8, Samples: 20}, c, function, device)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if err := m.Init(1); err != nil {
			t.Fatal(err)
		}
		one := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1))
		for at := range 3 {
			step(t, m, batches(t, d, at, 20, 8), at, true)
			if err := m.Write(1, 4, one); err != nil { // the device must see it
				t.Fatal(err)
			}
		}
		for _, s := range m.state {
			states[i] += string(s.bytes)
		}
		out, err := m.Predict(batches(t, d, 0, 20, 20)[0].Content.(*dataset.Content).Inputs...)
		if err != nil || len(out) != 1 || len(out[0].Bytes) != 20*classes*4 {
			t.Fatalf("%v, %v", out, err)
		}
		predicted[i] = out[0].Bytes
		right(t, m, d, out[0])
	}
	if states[0] != states[1] || string(predicted[0]) != string(predicted[1]) {
		t.Error("a device with memory of its own computes something else")
	}
}

// TestResultsMayShareMemory: a step may leave two variables equal, or one as another was; each has memory of its own.
func TestResultsMayShareMemory(t *testing.T) {
	for _, name := range []string{"go", "xla"} {
		t.Run(name, func(t *testing.T) {
			c := network{}.config(nil, nil)
			c.Model = linear(func(scope *model.Scope, x *graph.Node) {
				train.AddPerStepUpdateGraphFn(scope, x.Graph(), func(scope *model.Scope, g *graph.Graph) {
					now := scope.VariableWithValue("now", []float32{1, 2}).SetTrainable(false)
					twin := scope.VariableWithValue("twin", []float32{0, 0}).SetTrainable(false)
					before := scope.VariableWithValue("before", []float32{0, 0}).SetTrainable(false)
					before.SetNodeValue(now.NodeValue(g))
					next := graph.MulScalar(now.NodeValue(g), 2)
					now.SetNodeValue(next)
					twin.SetNodeValue(next)
				})
			})
			m, d := open(t, evenweave.Setup{Backend: name, MicroBatch: 16}, c), data(t, 16)
			if err := m.Init(1); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				step(t, m, batches(t, d, i, 16, 16), i, true)
			}
			for path, want := range map[string][]float32{"/before": {4, 8}, "/now": {8, 16}, "/twin": {8, 16}} {
				if got := m.byPath[path].flat.([]float32); !slices.Equal(got, want) {
					t.Errorf("%s is %v after three steps, expected %v", path, got, want)
				}
				clear(m.byPath[path].bytes) // must not show in the others
			}
		})
	}
}

// together is a device that shares memory with the host.
type together struct{ compute.Backend }

func (together) HasSharedBuffers() bool { return true }

// result is one of a program's that lies in memory of the test.
type result struct {
	compute.Buffer
	flat []float32
}

func (r result) Data() (any, error)        { return r.flat, nil }
func (r result) ToFlatData(into any) error { copy(into.([]float32), r.flat); return nil }
func (result) Finalize() error             { return nil }

// TestMemoryIsTakenOnce: what a program gives as two results in one place becomes two tensors.
func TestMemoryIsTakenOnce(t *testing.T) {
	r, inUse := result{flat: []float32{1, 2}}, map[*byte]bool{}
	var both [2]*memory
	for i := range both {
		old := result{flat: []float32{0, 0}}
		both[i] = &memory{device: together{}, buffer: old, flat: old.flat, bytes: bytesOf(old.flat)}
		if err := both[i].take(r, inUse); err != nil {
			t.Fatal(err)
		}
	}
	clear(both[0].bytes)
	if got := both[1].flat.([]float32); got[0] != 1 || got[1] != 2 {
		t.Errorf("writing to one tensor makes the other %v", got)
	}
}

// right compares the loss of predictions with what Evaluate finds.
func right(t *testing.T, m *Model, d evenweave.Data, out dataset.Flat) {
	t.Helper()
	figures, err := m.Evaluate(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	labels := batches(t, d, 0, 20, 20)[0].Content.(*dataset.Content).Labels[0]
	var total float64
	for i := range 20 {
		row, sum := out.Sample(i), 0.0
		logit := func(j int) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(row[4*j:]))) }
		for j := range classes {
			sum += math.Exp(logit(j))
		}
		total += math.Log(sum) - logit(int(labels.Sample(i)[0]))
	}
	if got := figures[0].Value; math.Abs(got-total/20) > 1e-5 {
		t.Errorf("the loss is %v, that of the predictions %v", got, total/20)
	}
}
