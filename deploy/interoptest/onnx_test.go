package interoptest

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/fashion/fashionmnist"
	"evenweave/gomlx/backend"
)

// ONNX Runtime gives the classes of all test images that `evenweave evaluate` gives, from the exported file, and
// logits that differ by the order of sums only. The document's Python reads the weights of the same run.
func TestONNX(t *testing.T) {
	python(t)
	t.Chdir(root(t))
	dir := t.TempDir()
	run(t, "train", "--dir", dir, "--steps", "60", "--recipe", "fast", "--workers", "1", "-o", "json")
	var evaluated struct {
		Accuracy float64 `json:"accuracy"`
		Weights  string  `json:"weights_sha256"`
	}
	if err := json.Unmarshal([]byte(run(t, "evaluate", "--dir", dir, "-o", "json")), &evaluated); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(run(t, "export", "--dir", dir, "--format", "onnx"))
	_, test, err := fashionmnist.Load(".evenweave/data")
	if err != nil {
		t.Fatal(err)
	}
	want := logits(t, dir, test)
	got := runONNX(t, path, test, evaluated.Weights)
	correct, furthest := 0, 0.0
	for i := range test.Len() {
		a, b := want[10*i:][:10], got[10*i:][:10]
		for j := range a {
			furthest = max(furthest, math.Abs(float64(a[j]-b[j])))
		}
		class := slices.Index(b, slices.Max(b))
		if class != slices.Index(a, slices.Max(a)) {
			t.Errorf("image %d: ONNX Runtime %v, Evenweave %v", i, b, a)
		}
		if class == int(test.Labels[i]) {
			correct++
		}
	}
	if accuracy := float64(correct) / float64(test.Len()); furthest > 1e-4 || accuracy != evaluated.Accuracy ||
		accuracy < 0.5 {
		t.Errorf("logits differ by up to %g; accuracy %v, evaluate says %v", furthest, accuracy, evaluated.Accuracy)
	}
	t.Logf("ONNX Runtime: %d images, %d correct, logits differ by up to %.2g", test.Len(), correct, furthest)
	documented(t, dir)
}

// logits are those of the run's newest checkpoint, by the model itself.
func logits(t *testing.T, dir string, test *fashionmnist.Dataset) []float32 {
	t.Helper()
	newest, err := checkpoint.Newest(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := checkpoint.Load(t.Context(), newest.Path)
	if err != nil {
		t.Fatal(err)
	}
	name, _, err := backend.Resolve("auto")
	if err != nil {
		t.Fatal(err)
	}
	m, err := cnn.Open(cnn.Options{Backend: name, Recipe: "fast", MicroBatch: 16, TotalSteps: 60,
		EvaluateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range m.Tensors() { // behind them are the trainer's own
		if err := m.Write(i, 0, c.State.Tensor(i)); err != nil {
			t.Fatal(err)
		}
	}
	all := make([]float32, 10*test.Len())
	if err := m.Logits(images(test), all); err != nil {
		t.Fatal(err)
	}
	return all
}

func images(d *fashionmnist.Dataset) (all []byte) {
	for i := range d.Len() {
		all = append(all, d.Image(i)...)
	}
	return all
}

func runONNX(t *testing.T, model string, test *fashionmnist.Dataset, weights string) []float32 {
	t.Helper()
	pixels, out := filepath.Join(t.TempDir(), "pixels"), filepath.Join(t.TempDir(), "logits")
	if err := os.WriteFile(pixels, images(test), 0o600); err != nil {
		t.Fatal(err)
	}
	metadata := reads(t, "run_onnx.py", model, pixels, out)
	if want := `{"step": "60", "task": "fashion", "weights_sha256": "` + weights + "\"}\n"; metadata != want {
		t.Errorf("metadata %s, want %s", metadata, want)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, len(raw)/4)
	if _, err := binary.Decode(raw, binary.LittleEndian, values); err != nil || len(values) != 10*test.Len() {
		t.Fatalf("%d logits, %v", len(values), err)
	}
	return values
}

// documented runs the Python of docs/files.md beside a run.
func documented(t *testing.T, dir string) {
	t.Helper()
	text, err := os.ReadFile("docs/files.md")
	if err != nil {
		t.Fatal(err)
	}
	run(t, "export", "--dir", dir, "--out", filepath.Join(dir, "weights.safetensors"))
	parts := strings.Split(string(text), "```python\n")
	if len(parts) != 3 {
		t.Fatalf("docs/files.md has %d programs in Python, want 2", len(parts)-1)
	}
	for i, want := range []string{"(3, 3, 1, 32)\n", "(1, 10)\n"} {
		program, _, _ := strings.Cut(parts[i+1], "```")
		program = strings.ReplaceAll(program, `"run/`, `"`+dir+"/")
		if out, err := finish(t, python(t), "-I", "-c", program); err != nil || out != want {
			t.Errorf("the program of docs/files.md: %v: %q, want %q\n%s", err, out, want, program)
		}
	}
}
