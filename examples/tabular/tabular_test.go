package main

import (
	"path/filepath"
	"testing"

	"evenweave"
	"evenweave/evenweavetest"
)

func TestMain(m *testing.M) { evenweavetest.Main(m, main) }

// The number of workers changes nothing but the speed, embeddings and a killed worker included.
func TestWorkerCountChangesNothing(t *testing.T) {
	flats := filepath.Join(t.TempDir(), "flats.csv")
	if err := generate(t.Context(), &evenweave.Invocation{Args: []string{flats}}); err != nil {
		t.Fatal(err)
	}
	r := evenweavetest.SameWeights(t, "--data", flats, "--epochs", "8")
	if mae := r.Figures["mae"]; !(mae > 9 && mae < 40) {
		t.Errorf("the mean absolute error is %v", mae)
	}
}
