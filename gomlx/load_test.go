package gomlx

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
)

func save(t *testing.T, m *Model, dir string) string {
	t.Helper()
	path, err := Save(t.Context(), m, dir)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestLoad: a program that has the model function alone predicts what the trained model does.
func TestLoad(t *testing.T) {
	o, params := network{batchNorm: true, dropout: true}, map[string]any{optimizer.ParamLearningRate: 0.01}
	m, d := open(t, evenweave.Setup{MicroBatch: 8}, o.config(optimizer.Adam().Done(), params)), data(t, 20)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		step(t, m, batches(t, d, i, 16, 8), i, true)
	}
	inputs := batches(t, d, 0, 20, 20)[0].Content.(*dataset.Content).Inputs
	want, err := m.Predict(inputs...)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := save(t, m, dir)
	whole := o.config(nil, nil)
	for _, path := range []string{dir, file} {
		loaded, err := Load(t.Context(), path, Config{Model: o.build, Inputs: whole.Inputs})
		if err != nil {
			t.Fatal(err)
		}
		got, err := loaded.Predict(inputs...)
		if err != nil || string(got[0].Bytes) != string(want[0].Bytes) {
			t.Errorf("%s: other predictions than the trained model's, %v", path, err)
		}
		if err := loaded.Close(); err != nil {
			t.Error(err)
		}
	}
	loaded, err := Load(t.Context(), dir, whole)
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	one, err := m.Evaluate(t.Context(), d)
	two, other := loaded.Evaluate(t.Context(), d)
	if err != nil || other != nil || !slices.Equal(one, two) {
		t.Errorf("evaluated to %v, %v, and once loaded to %v, %v", one, err, two, other)
	}
	if err := loaded.Update(buffers(loaded), 0); err == nil {
		t.Error("a model without its optimizer is updated")
	}
}

// TestLoadRefuses: what a checkpoint does not hold is named.
func TestLoadRefuses(t *testing.T) {
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 8}, network{}.config(nil, nil))
	dir := t.TempDir()
	file := save(t, m, dir)
	damaged, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged[len(damaged)/2]++
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	whole, wide := network{}.config(nil, nil), network{}.config(nil, nil)
	wide.Inputs = whole.Labels
	wide.Inputs[0].DType = whole.Inputs[0].DType
	normed := network{batchNorm: true}.config(nil, nil)
	for _, row := range []struct {
		path   string
		config Config
		says   string
	}{
		{"/nowhere", whole, "no such file"}, {t.TempDir(), whole, "checkpoint"}, {broken, whole, "SHA-256"},
		{dir, wide, "its tensor dense/dense/weights is float32[12 24], the model's float32[1 24]"},
		{file, normed, "it has no tensor norm/batch_normalization"}, {file, Config{Model: network{}.build}, "Inputs"},
		{file, Config{Inputs: whole.Inputs}, "Config.Model"},
	} {
		m, err := Load(t.Context(), row.path, row.config)
		if err == nil {
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: %v, expected an error with %q", row.path, err, row.says)
		}
	}
}

// TestSkippedCheckpointsAreNoted: a run directory whose newest checkpoint is damaged means an older one, which Load and
// Prepare say.
func TestSkippedCheckpointsAreNoted(t *testing.T) {
	c := network{}.config(nil, nil)
	m, dir := open(t, evenweave.Setup{Backend: "go", MicroBatch: 8}, c), t.TempDir()
	older := save(t, m, dir)
	newer := filepath.Join(filepath.Dir(older), "step-00000009-term-0000000001.ckpt")
	if err := os.WriteFile(newer, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	tuning := Tuning{InitFrom: dir}
	notes, err := tuning.Prepare(t.Context())
	if err != nil || len(notes) != 2 || !strings.Contains(notes[0], newer) || tuning.InitFrom != older {
		t.Errorf("starts from %s and notes %q, %v; want the damaged file", tuning.InitFrom, notes, err)
	}
	var log strings.Builder
	defer slog.SetDefault(slog.Default())
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	loaded, err := Load(t.Context(), dir, c)
	if err != nil || !strings.Contains(log.String(), newer) {
		t.Fatalf("loaded with %v, logged %q; want the damaged file", err, log.String())
	}
	if err := loaded.Close(); err != nil {
		t.Error(err)
	}
}
