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
	"evenweave/fashion/cnn"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

// zeroes saves a checkpoint whose manifest promises the tensors of the model, and whose payload has so many values more, all 0.
func zeroes(t *testing.T, more, samples int) string {
	t.Helper()
	spec, err := json.Marshal(job.Spec{Model: modelName, Recipe: "tutorial", Samples: 100, GlobalBatch: 32, MicroBatch: 8, Epochs: 1})
	if err != nil {
		t.Fatal(err)
	}
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tensors := new(cnn.Model).Tensors()
	promised, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	tensors[len(tensors)-1].Shape = []int{tensors[len(tensors)-1].Elements() + more}
	held, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	path, err := store.Save(t.Context(), checkpoint.Manifest{Spec: spec, Tensors: checkpoint.Tensors(promised)}, func(w io.Writer) error {
		_, err := state.Seal(state.New(held, samples)).WriteTo(w)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A whole file says nothing about what it holds: the manifest may promise more values, or other samples, than are there.
func TestCheckpointsHoldWhatTheirManifestPromises(t *testing.T) {
	for _, is := range []struct {
		more, samples int
		good          bool
	}{{0, 100, true}, {-9, 100, false}, {-2, 100, false}, {1, 100, false}, {0, 99, false}, {0, 0, false}} {
		s := specFlags{initFrom: zeroes(t, is.more, is.samples)}
		if weights, _, err := s.start(context.Background()); (err == nil) != is.good {
			t.Errorf("%d values more of %d samples: %d weights, %v", is.more, is.samples, len(weights), err)
		}
	}
}

// One bad picture does not keep the others from being classified.
func TestPredictGoesOnAfterABadPicture(t *testing.T) {
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
	out, err := program(t, "predict", "--backend", "go", "--checkpoint", zeroes(t, 0, 100), good, bad, filepath.Join(dir, "none.png"), good).CombinedOutput()
	text := string(out)
	if err == nil || strings.Count(text, good+": ") != 2 || !strings.Contains(text, bad+": ") || !strings.Contains(text, "TIFF") ||
		!strings.Contains(text, "none.png") {
		t.Errorf("%v\n%s", err, text)
	}
}
