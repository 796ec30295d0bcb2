package cli

import (
	"context"
	"encoding/json"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// zeroes saves a checkpoint of so many values, all 0, whose manifest promises those of the model.
func zeroes(t *testing.T, values, samples int) string {
	t.Helper()
	spec, err := json.Marshal(job.Spec{Model: modelName, Recipe: "tutorial", Samples: 100, GlobalBatch: 32, MicroBatch: 8, Epochs: 1})
	if err != nil {
		t.Fatal(err)
	}
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	path, err := store.Save(t.Context(), checkpoint.Manifest{Spec: spec, Tensors: judge{}.Tensors()}, func(w io.Writer) error {
		_, err := (&state.State{Ledger: schedule.NewLedger(samples), Values: make([]float32, values)}).WriteTo(w)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A whole file says nothing about what it holds: the manifest may promise more values, or other samples, than are there.
func TestCheckpointsHoldWhatTheirManifestPromises(t *testing.T) {
	values, err := checkpoint.Values(judge{}.Tensors())
	if err != nil {
		t.Fatal(err)
	}
	for _, is := range []struct {
		values, samples int
		good            bool
	}{{values, 100, true}, {0, 100, false}, {values - 1, 100, false}, {values + 1, 100, false}, {values, 99, false}, {values, 0, false}} {
		s := specFlags{initFrom: zeroes(t, is.values, is.samples)}
		if weights, _, err := s.start(context.Background()); (err == nil) != is.good {
			t.Errorf("%d values of %d samples: %d weights, %v", is.values, is.samples, len(weights), err)
		}
	}
}

// One bad picture does not keep the others from being classified.
func TestPredictGoesOnAfterABadPicture(t *testing.T) {
	values, err := checkpoint.Values(judge{}.Tensors())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.png"), filepath.Join(dir, "bad.png")
	f, err := os.Create(good)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, image.NewGray(image.Rect(0, 0, 28, 28))); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bad, []byte("II*\x00 no picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := program(t, "predict", "--backend", "go", "--checkpoint", zeroes(t, values, 100), good, bad, filepath.Join(dir, "none.png"), good).CombinedOutput()
	text := string(out)
	if err == nil || strings.Count(text, good+": ") != 2 || !strings.Contains(text, bad+": ") || !strings.Contains(text, "TIFF") ||
		!strings.Contains(text, "none.png") {
		t.Errorf("%v\n%s", err, text)
	}
}
