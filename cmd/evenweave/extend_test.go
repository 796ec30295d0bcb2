package main

import (
	"strings"
	"testing"
)

// TestExtend: a finished epoch, extended by another one with another number of workers, ends with the bits of a run of
// two. A recipe whose learning rate depends on the length refuses, and says why.
func TestExtend(t *testing.T) {
	data := needData(t)
	job := func(dir string, more ...string) []string {
		return append([]string{"train", "-o", "json", "--data", data, "--dir", dir, "--samples", "640",
			"--evaluate=false"},
			more...)
	}
	whole := train(t, job(t.TempDir(), "--epochs", "2", "--workers", "1")...)
	dir := t.TempDir()
	train(t, job(dir, "--epochs", "1", "--workers", "1")...)
	refused := func(args []string, says ...string) {
		t.Helper()
		out, err := program(t, args...).CombinedOutput()
		for _, want := range says {
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("%v: %v, want %q in\n%s", args, err, want, out)
			}
		}
	}
	refused(job(dir, "--epochs", "2"), "epochs: here 2, there 1", "--extend")
	extended := train(t, job(dir, "--epochs", "2", "--workers", "2", "--extend")...)
	if extended.Weights != whole.Weights || extended.Print != whole.Print || extended.Step != 10 || !extended.Complete {
		t.Errorf("extended: %+v, uninterrupted: %+v", extended, whole)
	}
	again := train(t, job(dir, "--epochs", "2", "--extend")...)
	if again.Weights != whole.Weights {
		t.Errorf("again: %+v", again)
	}
	refused(job(dir, "--epochs", "1"), "epochs: here 1, there 2")

	fast := t.TempDir()
	train(t, job(fast, "--recipe", "fast", "--steps", "2", "--workers", "1")...)
	refused(job(fast, "--recipe", "fast", "--steps", "4", "--extend"), "cannot be extended", "learning rate", `"fast"`)
}
