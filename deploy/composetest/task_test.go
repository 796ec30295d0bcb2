package composetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"evenweave/internal/progress"
)

// TestAnyTaskInAnImage: the Dockerfile builds a program of one's own, and the Compose file runs it by the image's name,
// with the task's options, to the weights of a run on the host.
func TestAnyTaskInAnImage(t *testing.T) {
	needDocker(t)
	program := filepath.Join(t.TempDir(), "softmax")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../examples/softmax", "-trimpath", "-o", program,
		".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	options := filepath.Join(t.TempDir(), "task.env")
	if err := os.WriteFile(options, []byte("EVENWEAVE_RATE=0.2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := []string{"EVENWEAVE_STEPS=300", "EVENWEAVE_SEED=7"}
	s := newStack(t, append(spec, "EVENWEAVE_IMAGE=evenweave-softmax:test", "EVENWEAVE_PACKAGE=./examples/softmax",
		"EVENWEAVE_TASK_ENV="+options, "EVENWEAVE_OUTPUT=json", "EVENWEAVE_STATUS_PORT=0", "DOCKER_BUILDKIT=0")...)
	s.compose("build", "coordinator")
	s.up()
	var done progress.Done
	s.await("the end", func(e progress.Event) (ok bool) { done, ok = e.(progress.Done); return ok })
	s.returned()
	if want := calm(t, program, append(spec, "EVENWEAVE_RATE=0.2")); outcomeOf(done) != want {
		t.Errorf("compose gives %+v,\nthe host %+v", outcomeOf(done), want)
	}
}
