package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"evenweave/internal/progress"
)

// TestLogLinesAreWarnings: the message first, without the time and the level that an event has.
func TestLogLinesAreWarnings(t *testing.T) {
	var last finalWarning
	log, err := (&logFlags{level: "info"}).warnings(&last)
	if err != nil {
		t.Fatal(err)
	}
	for want, write := range map[string]func(){
		`starting again process=worker-2 after="exit status 1"`: func() {
			log.Warn("starting again", "process", "worker-2", "after", "exit status 1")
		},
		"interrupted": func() { log.Warn("interrupted") },
	} {
		if write(); string(last) != want {
			t.Errorf("%q, want %q", last, want)
		}
	}
}

type finalWarning string

func (f *finalWarning) Observe(r progress.Record) {
	*f = finalWarning(r.Event.(progress.Warning).Message)
}

// TestLostOutputIsSaid: a command whose output could not be written fails, and says so, except to what reads no more.
func TestLostOutputIsSaid(t *testing.T) {
	r, broken, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	defer broken.Close()
	outputs := map[string]*os.File{"": broken}
	if full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0); err == nil {
		defer full.Close()
		outputs["no space left on device"] = full
	}
	for want, out := range outputs {
		cmd := command(t, "--help")
		var stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = out, &stderr
		err := cmd.Run()
		if cmd.ProcessState.ExitCode() != exitFailed || want == "" && stderr.Len() > 0 ||
			want != "" && !strings.Contains(stderr.String(), "standard output") ||
			!strings.Contains(stderr.String(), want) {
			t.Errorf("%s: %v, %q", want, err, stderr.String())
		}
	}
}
