package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/options"
	"evenweave/internal/sheet"
	"evenweave/internal/state"
)

// own makes a cobra command of the task's command.
func (p *program) own(c evenweave.Command) (*cobra.Command, error) {
	set, err := options.Of(c.Options)
	if err != nil {
		return nil, fmt.Errorf("command %q of task %q: %w", c.Name, p.task.Name, err)
	}
	cmd := &cobra.Command{Use: strings.TrimSpace(c.Name + " " + c.Args), Short: c.About, Long: c.Long,
		Args: argsOf(c.Args)}
	var from checkpointFlags
	var dir string
	if c.Checkpoint {
		from.register(p, cmd)
	}
	if c.Data {
		dataFlag(cmd.Flags(), &dir)
	}
	output := outputFlag(cmd, c.Outputs...)
	if err := p.addFlags(cmd.Flags(), set, everyOption); err != nil {
		return nil, err
	}
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, args []string) (err error) {
		if err := validateOptions(c.Options); err != nil {
			return err
		}
		i := &evenweave.Invocation{Args: args, Stdin: input{ctx, cmd.InOrStdin()}, Stdout: cmd.OutOrStdout(),
			Stderr: cmd.ErrOrStderr(), Draw: drawRows, Page: sheet.WritePage, Output: *output, JSON: *output == "json",
			Dir: dir}
		if c.Checkpoint {
			l, err := from.load(ctx, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, l.Model.Close()) }()
			i.Loaded = &l
		}
		return c.Run(ctx, i)
	})
	return cmd, nil
}

// argsOf checks the number of arguments by their description in --help: a word in brackets is optional, "..." allows
// more.
func argsOf(usage string) cobra.PositionalArgs {
	least, most := 0, 0
	for _, word := range strings.Fields(usage) {
		if most++; !strings.HasPrefix(word, "[") {
			least++
		}
	}
	if strings.Contains(usage, "...") {
		most = math.MaxInt
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case most == 0:
			return noArgs(cmd, args)
		case len(args) < least || len(args) > most:
			return usagef("%s takes %s, got %d arguments", cmd.Name(), usage, len(args))
		}
		return nil
	}
}

// checkpointFlags name a checkpoint: a file, or the newest of a run directory.
type checkpointFlags struct {
	program            *program
	path, dir, backend string
}

func (c *checkpointFlags) register(p *program, cmd *cobra.Command) {
	c.program = p
	cmd.Flags().StringVar(&c.path, "checkpoint", "", "checkpoint file")
	cmd.Flags().StringVar(&c.dir, "dir", "./run", "run directory, whose newest valid checkpoint is taken")
	p.backendFlag(cmd.Flags(), &c.backend)
}

// load opens the model for evaluation, with the checkpoint's state.
func (c *checkpointFlags) load(ctx context.Context, warn io.Writer) (l evenweave.Loaded, err error) {
	if l.Path = c.path; l.Path == "" {
		if l.Path, err = newestCheckpoint(ctx, c.dir, warn); err != nil {
			return l, err
		}
	}
	from, spec, err := readCheckpoint(ctx, l.Path)
	if err != nil {
		return l, err
	}
	l.Step, l.Epoch, l.WeightsSHA256 = from.Manifest.Step, from.Epoch, from.WeightsSHA256
	if err := c.program.adopt(spec); err != nil {
		return l, fmt.Errorf("%s: %w", l.Path, err)
	}
	if l.Model, err = c.program.model(ctx, spec, c.backend, true, warn); err != nil {
		return l, err
	}
	if err := restore(l.Model, from.State); err != nil {
		return l, errors.Join(fmt.Errorf("%s: %w", l.Path, err), l.Model.Close())
	}
	return l, nil
}

// restore gives the model a checkpoint's state.
func restore(model evenweave.Model, s *state.State) error {
	wanted, err := state.NewLayout(model.Tensors())
	if err != nil {
		return err
	}
	held, err := s.Layout.OfModel()
	if err == nil && !held.Equal(wanted) {
		err = fmt.Errorf("%s: use the program that wrote it", held.Other(wanted))
	}
	if err != nil {
		return err
	}
	return s.Layout.WriteImage(s.Layout.Live(model), s.Image)
}

// newestCheckpoint finds the newest valid checkpoint of a run directory, and warns of each damaged one that it skips.
func newestCheckpoint(ctx context.Context, dir string, warn io.Writer) (string, error) {
	newest, err := checkpoint.Newest(ctx, dir, func(e *checkpoint.DamagedError) { fmt.Fprintln(warn, "skipped:", e) })
	if errors.Is(err, checkpoint.ErrNone) {
		return "", fmt.Errorf("no checkpoint in %s: train first, or name another directory or file", dir)
	}
	if err != nil {
		return "", err
	}
	return newest.Path, nil
}

// readCheckpoint reads a file and the spec in it.
func readCheckpoint(ctx context.Context, path string) (*checkpoint.Checkpoint, job.Spec, error) {
	var spec job.Spec
	c, err := checkpoint.Load(ctx, path)
	if err != nil {
		return nil, spec, err
	}
	if spec, err = job.ReadSpec(c.Spec); err != nil {
		return nil, spec, fmt.Errorf("%s: %w", path, err)
	}
	if got := c.State.Ledger.Samples(); got != spec.Samples {
		return nil, spec, fmt.Errorf("%s: its state was trained on %d samples, its spec names %d",
			path, got, spec.Samples)
	}
	return c, spec, nil
}
