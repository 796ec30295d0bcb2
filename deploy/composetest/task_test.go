package composetest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/internal/progress"
)

// override gives what trains and what evaluates a directory of the host, as docs/your-own-model.md says.
const override = `services:
  coordinator: {volumes: ["DIR:/samples:ro"]}
  worker: {volumes: ["DIR:/samples:ro"]}
`

// TestAnyTaskInAnImage: the Dockerfile builds a program of one's own, and the Compose file runs it by the image's name,
// with the task's options and one's own data, to the weights of a run on the host.
func TestAnyTaskInAnImage(t *testing.T) {
	needDocker(t)
	dir, data := t.TempDir(), t.TempDir()
	program := filepath.Join(dir, "gpt")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../../examples/gpt", "-trimpath", "-o", program,
		".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	task := []string{"EVENWEAVE_LAYERS=1", "EVENWEAVE_WIDTH=8", "EVENWEAVE_HEADS=2", "EVENWEAVE_CONTEXT=8",
		"EVENWEAVE_MATCH=*.txt"}
	options, volumes := filepath.Join(dir, "task.env"), filepath.Join(dir, "override.yml")
	for path, text := range map[string]string{
		filepath.Join(data, "fox.txt"): strings.Repeat("the quick brown fox jumps over the lazy dog\n", 3000),
		options:                        strings.Join(append(task, "EVENWEAVE_DATA=/samples"), "\n"),
		volumes:                        strings.ReplaceAll(override, "DIR", data),
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spec := []string{"EVENWEAVE_STEPS=200", "EVENWEAVE_SEED=7", "EVENWEAVE_BACKEND=go"}
	s := newStack(t, append(spec, "EVENWEAVE_IMAGE=evenweave-gpt:test", "EVENWEAVE_PACKAGE=./examples/gpt",
		"EVENWEAVE_TASK_ENV="+options, "EVENWEAVE_OUTPUT=json", "EVENWEAVE_STATUS_PORT=0", "DOCKER_BUILDKIT=0")...)
	s.files = append(s.files, volumes)
	s.compose("build", "coordinator")
	s.up()
	var done progress.Done
	s.await("the end", func(e progress.Event) (ok bool) { done, ok = e.(progress.Done); return ok })
	s.returned()
	if want := calm(t, program, append(append(spec, task...), "EVENWEAVE_DATA="+data)); outcomeOf(done) != want {
		t.Errorf("compose gives %+v,\nthe host %+v", outcomeOf(done), want)
	}
}
