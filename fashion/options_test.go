package fashion

import (
	"slices"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// saved writes a checkpoint of tensors whose bytes are all 1.
func saved(t *testing.T, tensors []evenweave.Tensor) string {
	t.Helper()
	layout, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(layout, 100)
	for i := range tensors {
		for j := range s.Tensor(i) {
			s.Tensor(i)[j] = 1
		}
	}
	path, err := checkpointtest.Save(t.Context(), t.TempDir(), checkpoint.Manifest{}, s)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The network starts from the weights of --init-from, and from no moments; a checkpoint of other tensors is refused by
// name.
func TestInitFrom(t *testing.T) {
	good := cnn.Tensors(0)
	task := Task()
	o := task.Options.(*options)
	o.InitFrom = saved(t, good)
	m, _, err := checkpoint.Peek(o.InitFrom)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := o.Prepare(t.Context())
	if err != nil || len(notes) != 1 || o.Init != m.WeightsSHA256 || !strings.Contains(notes[0], o.InitFrom) {
		t.Fatalf("notes %q, init %q, %v", notes, o.Init, err)
	}
	model, err := task.Model(evenweave.Setup{Backend: "go", MicroBatch: 1, TotalSteps: 1, EvaluateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Init(1); err != nil {
		t.Fatal(err)
	}
	for i, tensor := range model.Tensors() {
		b, want := make([]byte, tensor.Bytes()), byte(0)
		if tensor.Role == evenweave.Trained {
			want = 1
		}
		if err := model.Read(i, 0, b); err != nil || slices.ContainsFunc(b, func(x byte) bool { return x != want }) {
			t.Errorf("%s is not all %d: %v", tensor.Name, want, err)
		}
	}
	if err := model.Close(); err != nil {
		t.Error(err)
	}

	smaller, missing := slices.Clone(good), slices.Delete(slices.Clone(good), 1, 2)
	smaller[0].Shape = []int{3}
	for name, tensors := range map[string][]evenweave.Tensor{smaller[0].Name: smaller, good[1].Name: missing} {
		o.InitFrom = saved(t, tensors)
		_, err := o.Prepare(t.Context())
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "--init-from") {
			t.Errorf("without a good %s: %v", name, err)
		}
		if o.weights != nil {
			t.Error("weights of an earlier file are left")
		}
	}
}

// What cannot be trained is said by the flag's name.
func TestValidate(t *testing.T) {
	for says, o := range map[string]options{
		"--samples -1":  {Recipe: "fast", Samples: -1},
		"cake":          {Recipe: "cake"},
		`--classes "x"`: {Recipe: "fast", Classes: "x"},
		`--freeze "y"`:  {Recipe: "fast", Freeze: "y"},
	} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", o, err, says)
		}
	}
	if err := (&options{Recipe: "fast", Classes: "3,255", Holdout: 1000}).Validate(); err != nil {
		t.Error(err)
	}
}
