package interoptest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"evenweave/cli"
	"evenweave/evenweavetest"
	"evenweave/fashion"
)

// beEvenweave makes this test binary the program, and that of its children.
const beEvenweave = "EVENWEAVE_TEST_BINARY_IS_EVENWEAVE"

func TestMain(m *testing.M) {
	if os.Getenv(beEvenweave) != "" {
		cli.Main(fashion.Task())
	}
	evenweavetest.ClearVariables()
	os.Exit(m.Run())
}

const deadline = 5 * time.Minute // only a hang takes so long

// python is the interpreter that has the readers.
func python(t *testing.T) string {
	t.Helper()
	asked := os.Getenv("EVENWEAVE_TEST_INTEROP")
	if asked == "" {
		t.Skip("reads with Python packages: make test-interop")
	}
	path := filepath.Join(root(t), ".evenweave/interop/bin/python")
	if _, err := os.Stat(filepath.Join(path, "../../installed.txt")); err != nil {
		if asked == "required" {
			t.Fatalf("no Python with the readers: %v", err)
		}
		t.Skipf("no Python with the readers (%v): see what make test-interop printed", err)
	}
	return path
}

// reads runs a script of this folder, and returns what it printed.
func reads(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, err := finish(t, python(t), append([]string{"-I", "deploy/interoptest/" + script}, args...)...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return out
}

// run runs a command of the built-in task.
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := finish(t, os.Args[0], args...)
	if err != nil {
		t.Fatalf("evenweave %v: %v\n%s", args, err, out)
	}
	return out
}

func finish(t *testing.T, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), beEvenweave+"=1")
	cmd.Dir, cmd.Stderr = root(t), os.Stderr // where .evenweave is
	out, err := cmd.Output()
	return string(out), err
}

// root is the repository's folder.
func root(t *testing.T) string {
	t.Helper()
	here, err := os.Getwd()
	for ; err == nil && here != "/"; here = filepath.Dir(here) {
		if _, err := os.Stat(filepath.Join(here, "go.mod")); err == nil {
			return here
		}
	}
	t.Fatalf("no folder above has a go.mod: %v", err)
	return ""
}
