package main

import (
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
	"evenweave/internal/state"
)

// zeroes saves a checkpoint of the network with all weights 0.
func zeroes(t *testing.T) string {
	t.Helper()
	spec := `{"task":"fashion","options":{"recipe":"tutorial","classes":"","samples":100,"holdout":0,"freeze":"","init":""},"data":"d",
		"samples":100,"global_batch":32,"micro_batch":8,"epochs":1}`
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	layout, err := state.NewLayout(new(cnn.Model).Tensors())
	if err != nil {
		t.Fatal(err)
	}
	m := checkpoint.Manifest{Spec: json.RawMessage(spec), Tensors: checkpoint.Tensors(layout)}
	path, err := store.Save(t.Context(), m, func(w io.Writer) error {
		_, err := state.Seal(state.New(layout, 100)).WriteTo(w)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
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
	out, err := program(t, "predict", "--backend", "go", "--checkpoint", zeroes(t), good, bad,
		filepath.Join(dir, "none.png"), good).CombinedOutput()
	text := string(out)
	if err == nil || strings.Count(text, good+": ") != 2 || !strings.Contains(text, bad+": ") ||
		!strings.Contains(text, "TIFF") ||
		!strings.Contains(text, "none.png") {
		t.Errorf("%v\n%s", err, text)
	}
}
