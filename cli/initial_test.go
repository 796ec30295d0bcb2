package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/state"
)

// odd is a model whose Init does what --from says.
type odd struct {
	*example.Softmax
	from    string
	options *tinyOptions
}

func (m odd) Init(seed uint64) error {
	fmt.Println("a model that says something as it begins")
	switch m.from {
	case "init: fails":
		return errors.New("no initial\nweights")
	case "init: misused":
		return evenweave.UsageError{Err: errors.New("--from is not for this")}
	case "init: dies":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "init: says much":
		return errors.New("no initial " + strings.Repeat("\x01weights", 1<<20))
	case "init: hangs":
		select {}
	case "init: prepared":
		if o := m.options; o.Hash != strings.ToUpper(o.From) {
			return errors.New("the options are not prepared")
		}
	}
	return m.Softmax.Init(seed)
}

// oddJob is a job of the tiny task in a program that starts itself again as the process that makes its initial state.
func oddJob(t *testing.T, from string) (*program, job.Job) {
	t.Helper()
	t.Setenv(beProgram, "1")
	task := tiny()
	task.Options.(*tinyOptions).From = from
	p, err := newProgram(task, "tiny", nil)
	if err == nil && from != "init: prepared" {
		_, err = task.Options.(evenweave.Preparer).Prepare(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return p, job.Job{UUID: "u", Spec: job.Spec{Task: "tiny", Options: p.options.Spec(), Data: "d", Samples: 300,
		GlobalBatch: 32, MicroBatch: 8, Steps: 5}}
}

// TestTheInitialStateIsMadeInAnotherProcess: it is the one that this process would make.
func TestTheInitialStateIsMadeInAnotherProcess(t *testing.T) {
	p, j := oddJob(t, "")
	model := example.NewSoftmax()
	layout, err := state.OfJob(model.Tensors())
	if err != nil {
		t.Fatal(err)
	}
	s, err := probe.Initial(model, layout, j.Spec.Seed, j.Spec.Samples)
	var want, got, said bytes.Buffer
	if err == nil {
		err = s.Encode(&want)
	}
	if err != nil {
		t.Fatal(err)
	}
	run := p.initialState(map[string]string{"log-format": "text", "log-level": "debug"}, &said)
	if err := run(t.Context(), j, func(r io.Reader) error {
		s, err := state.Encoded(r, layout, j.Spec.Samples)
		if err == nil {
			err = s.Encode(&got)
		}
		return err
	}); err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	if want.Len() == 0 || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes, expected the %d of the state that is made here", got.Len(), want.Len())
	}
	full := errors.New("no space left")
	if err := run(t.Context(), j, func(io.Reader) error { return full }); !errors.Is(err, full) {
		t.Errorf("a state that cannot be saved: %v", err)
	}
}

// TestWhatTheJobStartsFromIsReadAgain: the other process prepares the options too, and refuses what has changed since.
func TestWhatTheJobStartsFromIsReadAgain(t *testing.T) {
	p, j := oddJob(t, "init: prepared")
	saved := func(r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
	err := p.initialState(nil, io.Discard)(t.Context(), j, saved)
	if err == nil || !strings.Contains(err.Error(), "has changed since it was begun, start again: now hash: ") {
		t.Errorf("a job that was begun with another hash: %v", err)
	}
	if _, err := p.task.Options.(evenweave.Preparer).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.Spec.Options = p.options.Spec()
	if err := p.initialState(nil, io.Discard)(t.Context(), j, saved); err != nil {
		t.Error(err)
	}
}

// TestAnInitialStateThatCannotBeMadeIsExplained: the error is the other process's own, with its exit code; a process
// that was killed is named, and one that hangs ends with the caller.
func TestAnInitialStateThatCannotBeMadeIsExplained(t *testing.T) {
	for from, want := range map[string]struct {
		text string
		code int
	}{
		"init: fails":     {"no initial\nweights", exitFailed},
		"init: says much": {"no initial \x01weights", exitFailed},
		"init: misused":   {"--from is not for this", exitUsage},
		"init: dies": {"has ended: signal: killed; its output above says why, or it was killed for lack",
			exitFailed},
		"init: hangs": {"enough", exitFailed},
	} {
		p, j := oddJob(t, from)
		ctx, cancel := context.WithCancelCause(t.Context())
		if from == "init: hangs" {
			time.AfterFunc(50*time.Millisecond, func() { cancel(errors.New("enough")) })
		}
		err := p.initialState(nil, io.Discard)(ctx, j, func(io.Reader) error {
			t.Errorf("%s: there is a state", from)
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), want.text) || exitCode(err) != want.code {
			t.Errorf("%s: %v with code %d, want %q and %d", from, err, exitCode(err), want.text, want.code)
		}
		cancel(nil)
	}
}

// TestTheProcessThatMakesTheInitialStateEndsWithItsParent, whatever the model does.
func TestTheProcessThatMakesTheInitialStateEndsWithItsParent(t *testing.T) {
	_, j := oddJob(t, "init: hangs")
	cmd := command(t, "initial", "--from", "init: hangs")
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err == nil {
		err = json.NewEncoder(in).Encode(j)
	}
	if err == nil {
		err = in.Close() // as the kernel does when the parent is killed
	}
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 137 {
		t.Errorf("it ends with %v, want exit code 137", err)
	}
}
