package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestLostOutputIsSaid: a command whose output could not be written fails, and says so.
func TestLostOutputIsSaid(t *testing.T) {
	r, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer broken.Close()
	outputs := map[string]*os.File{"broken pipe": broken}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		defer full.Close()
		outputs["no space left on device"] = full
	}
	for want, out := range outputs {
		cmd := command(t, "--help")
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = out, &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(stderr.String(), "standard output") ||
			!strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %v, %q", want, err, stderr.String())
		}
	}
}
