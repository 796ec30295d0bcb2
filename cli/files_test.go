package cli

import (
	"encoding/json"
	"testing"

	"evenweave/checkpoint"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

// A whole file says nothing about what it holds: the manifest may promise more values, or other samples, than are
// there.
func TestCheckpointsHoldWhatTheirManifestPromises(t *testing.T) {
	for _, is := range []struct {
		more, samples int
		task          string
		good          bool
	}{
		{0, 100, "tiny", true}, {-9, 100, "tiny", false}, {-1, 100, "tiny", false}, {2, 100, "tiny", false},
		{0, 99, "tiny", false}, {0, 0, "tiny", false},
		{0, 100, "Tiny", false},
	} {
		_, _, err := readCheckpoint(t.Context(), zeroes(t, is.task, is.more, is.samples))
		if (err == nil) != is.good {
			t.Errorf("%+v: %v", is, err)
		}
	}
}

// zeroes saves a checkpoint whose manifest promises the tensors of the tiny model, and whose payload has so many values
// more, all 0.
func zeroes(t *testing.T, task string, more, samples int) string {
	t.Helper()
	spec, err := json.Marshal(job.Spec{Task: task, Samples: 100, GlobalBatch: 32, MicroBatch: 8, Epochs: 1})
	if err != nil {
		t.Fatal(err)
	}
	tensors := example.NewSoftmax().Tensors()
	promised, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	tensors = example.NewSoftmax().Tensors()
	last := &tensors[len(tensors)-1]
	last.Shape = []int{max(1, last.Elements()+more)}
	held, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	path, err := checkpointtest.Save(t.Context(), t.TempDir(),
		checkpoint.Manifest{Spec: spec, Tensors: checkpoint.Tensors(promised)}, state.New(held, samples))
	if err != nil {
		t.Fatal(err)
	}
	return path
}
