package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/probe"
	"evenweave/internal/state"
)

// A process of its own makes the state of step 0: the model's values, what computes them and their copies are four
// times the state, and gone when it ends.

const (
	initialLimit = 10 * time.Minute // until the state begins to come, and while nothing of it comes
	maxAnswer    = 64 << 10         // bytes
	maxError     = 8 << 10          // bytes, which JSON makes at most six times as many
)

// initialAnswer is a line that this process writes, before the encoding of the state.
type initialAnswer struct {
	Error string // "": the state follows
	Code  int    // the exit code that stands for it
}

// initialState runs that process: for coordinator.Config.Initial.
func (p *program) initialState(logs map[string]string, stderr io.Writer) func(context.Context, job.Job,
	func(io.Reader) error) error {
	return func(ctx context.Context, j job.Job, save func(encoded io.Reader) error) error {
		executable, err := os.Executable()
		if err != nil {
			return err
		}
		launch := local.Launch{Role: local.Initial, Settings: p.optionSettings(everyOption)}.With(logs)
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		quiet := time.AfterFunc(initialLimit, func() { cancel(fmt.Errorf("nothing has come for %v", initialLimit)) })
		defer quiet.Stop()
		cmd := exec.CommandContext(ctx, executable, launch.Args()...)
		out, answers, err := os.Pipe()
		if err != nil {
			return err
		}
		defer out.Close()
		cmd.ExtraFiles = []*os.File{answers} // what the program prints on its standard output is no answer
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = stderr, stderr, time.Second
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the coordinator
		in, err := cmd.StdinPipe()
		err = errors.Join(err, cmd.Start())
		_ = answers.Close()
		if err != nil {
			return fmt.Errorf("starting the process that makes the initial state: %w", err)
		}
		_ = json.NewEncoder(in).Encode(j) // where it has ended, there is no answer either
		err = takeInitial(bufio.NewReaderSize(noticed{out, func() { quiet.Reset(initialLimit) }}, maxAnswer), save)
		if errors.Is(err, io.EOF) || errors.Is(err, state.ErrDamaged) { // it ends by itself, before all is here
			_ = in.Close()
			ended := cmd.Wait()
			if cause := context.Cause(ctx); cause != nil {
				return fmt.Errorf("the process that makes the initial state was ended: %w", cause)
			}
			return fmt.Errorf("the process that makes the initial state has ended: %w; its output above says why, or "+
				"it was killed for lack of memory: it needs that of four states", cmp.Or(ended, err))
		}
		cancel(nil)
		_ = in.Close()
		_ = cmd.Wait() // it was ended here
		return err
	}
}

// noticed calls a function after each read.
type noticed struct {
	io.Reader
	then func()
}

func (n noticed) Read(b []byte) (int, error) {
	defer n.then()
	return n.Reader.Read(b)
}

// takeInitial reads what the process writes.
func takeInitial(r *bufio.Reader, save func(encoded io.Reader) error) error {
	var a initialAnswer
	line, err := r.ReadSlice('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	switch {
	case err == io.EOF:
		return err
	case err != nil:
		return fmt.Errorf("the process that makes the initial state says %.200q: %w", line, err)
	case a.Error != "" && a.Code == exitUsage:
		return usageError{errors.New(a.Error)}
	case a.Error != "":
		return errors.New(a.Error)
	}
	return save(r)
}

// initialCommand is that process. It ends when its standard input does.
func (p *program) initialCommand() *cobra.Command {
	cmd := &cobra.Command{Use: string(local.Initial), Hidden: true, Args: noArgs,
		Short: "Write the state of step 0 of a job"}
	p.optionFlags(cmd.Flags(), everyOption)
	var logs logFlags
	logs.register(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		log, err := logs.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		in := json.NewDecoder(os.Stdin)
		var j job.Job
		if err := in.Decode(&j); err != nil {
			return err
		}
		go func() { // its parent's end; nothing else ends a model that initialises itself
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(137)
		}()
		s, err := p.makeInitial(cmd.Context(), j, log)
		out, answer := bufio.NewWriterSize(os.NewFile(3, "answers"), state.BlockSize), initialAnswer{}
		if err != nil {
			text := err.Error() // XLA quotes whole programs
			answer = initialAnswer{text[:min(len(text), maxError)], exitCode(err)}
		}
		if said := json.NewEncoder(out).Encode(answer); said != nil || err != nil {
			return errors.Join(said, out.Flush())
		}
		return errors.Join(s.Encode(out), out.Flush())
	}
	return cmd
}

// makeInitial makes the state; the process ends after it is read, and so the model.
func (p *program) makeInitial(ctx context.Context, j job.Job, log *slog.Logger) (s state.Stream, err error) {
	if err := p.adopt(j.Spec); err != nil {
		return s, err
	}
	if preparer, ok := p.task.Options.(evenweave.Preparer); ok { // it may read what Init needs
		if _, err := preparer.Prepare(ctx); err != nil {
			return s, err
		}
	}
	now := j.Spec
	now.Options = p.options.Spec()
	if changed := now.Diff(j.Spec); len(changed) > 0 {
		return s, fmt.Errorf("what the job starts from has changed since it was begun, start again: now %s",
			strings.Join(changed, "; "))
	}
	model, err := guard.Model(p.task, setup(ctx, j, true, log))
	if err != nil {
		return s, err
	}
	layout, err := state.OfJob(model.Tensors())
	if err != nil {
		return s, err
	}
	return probe.Initial(model, layout, j.Spec.Seed, j.Spec.Samples)
}
