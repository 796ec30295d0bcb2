package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"evenweave/evenweavetest"
)

// TestMain makes this test binary the program too: train starts it again as the cluster's processes.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		main()
	}
	os.Exit(m.Run())
}

func TestExact(t *testing.T) { evenweavetest.Verify(t, task()) }

// The number of workers changes nothing but the speed.
func TestWorkerCountChangesNothing(t *testing.T) {
	var first string
	for workers := 1; workers <= 3; workers++ {
		done := train(t, "--workers", fmt.Sprint(workers), "--epochs", "3")
		if done.Accuracy < 0.8 {
			t.Errorf("%d workers: accuracy %v", workers, done.Accuracy)
		}
		if first == "" {
			first = done.Weights
		}
		if done.Weights != first || done.Workers != workers {
			t.Errorf("%d workers: %+v, one worker: %s", workers, done, first)
		}
	}
}

type done struct {
	Event    string
	Workers  int
	Weights  string  `json:"weights_sha256"`
	Accuracy float64 `json:"test_accuracy"`
}

func train(t *testing.T, args ...string) (d done) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], append([]string{"train", "-o", "json", "--dir", t.TempDir()},
		args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("train: %v\n%s", err, stderr.String())
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &d); err != nil || d.Event != "done" {
		t.Fatalf("train ends with %s, %v", lines[len(lines)-1], err)
	}
	return d
}
