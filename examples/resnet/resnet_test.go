package main

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"evenweave"
	"evenweave/evenweavetest"
)

func TestMain(m *testing.M) { evenweavetest.Main(m, main) }

// images writes a set of 28 x 28 images of three classes, each with a bright band of its own, into a directory.
func images(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for part, n := range map[string]int{"train": 300, "t10k": 60} {
		pixels, labels := []byte{0, 0, 8, 3}, []byte{0, 0, 8, 1}
		for _, axis := range []int{n, 28, 28} {
			pixels = binary.BigEndian.AppendUint32(pixels, uint32(axis))
		}
		labels = binary.BigEndian.AppendUint32(labels, uint32(n))
		for i := range n {
			labels = append(labels, byte(i%3))
			for at := range 28 * 28 {
				value := byte((at*7 + i*13) % 64)
				if row := at / 28; row/9 == i%3 {
					value += 160
				}
				pixels = append(pixels, value)
			}
		}
		for name, content := range map[string][]byte{"-images-idx3-ubyte": pixels, "-labels-idx1-ubyte": labels} {
			if err := os.WriteFile(filepath.Join(dir, part+name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// The number of workers changes nothing but the speed, batch normalisation's averages and a killed worker included.
func TestWorkerCountChangesNothing(t *testing.T) {
	r := evenweavetest.SameWeights(t, "--data", images(t), "--classes", "3", "--width", "4", "--epochs", "6",
		"--micro-batch", "8", "--global-batch", "32")
	if r.Figures["accuracy"] < 0.9 {
		t.Errorf("accuracy %v", r.Figures["accuracy"])
	}
}

// An evaluation shows, without a line for it, what each class was taken for: every test image once.
func TestEvaluationShowsClasses(t *testing.T) {
	r := &resnet{Width: 2, Depth: 1, Rate: 0.003, Classes: 3}
	sets, err := r.data(images(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.model(evenweave.Setup{Backend: "xla", MicroBatch: 20, TotalSteps: 100, EvaluateOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	_, shown, err := m.(evenweave.DetailedEvaluator).EvaluateDetails(t.Context(), sets.Test)
	if err != nil || len(shown.Tables) < 2 || shown.Tables[0].Title != "Confusion matrix" ||
		len(shown.Galleries) != 2 || len(shown.Galleries[0].Pictures) == 0 {
		t.Fatalf("%+v, %v", shown, err)
	}
	for _, row := range shown.Tables[0].Rows {
		if n := row.Cells[0] + row.Cells[1] + row.Cells[2]; n != 20 {
			t.Errorf("class %s has %v images, expected 20", row.Name, n)
		}
	}
}
