package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"evenweave/internal/job"
)

// stepBench is a call of `bench step`.
type stepBench struct {
	specFlags
	workers, parallelism int
	pin                  bool
	output               *string
}

// warmUp steps are not counted: they fill pools and caches.
const warmUp = 2

func (p *program) benchStepCommand() *cobra.Command {
	b := &stepBench{}
	b.program, b.keep = p, 1
	cmd := &cobra.Command{Use: "step", Args: noArgs, Short: "Measure the parts of a training step of the task",
		Long: `Trains some steps as processes of this machine, without etcd, a coordinator and checkpoints, and prints the median time of
each part: loading, gradients, quantising, fingerprints, the sum and the wait in it, the mean, the update. Overhead is all but
loading, gradients and update, in percent of all without the wait; memory is the most that a worker held.`}
	f := cmd.Flags()
	f.Int64Var(&b.spec.Steps, "steps", 10, "steps to measure, beside 2 before them")
	batchFlags(f, &b.spec)
	p.defaults(f)
	f.Lookup("steps").DefValue, b.spec.Steps, b.spec.Epochs = "10", 10, 1
	f.IntVar(&b.workers, "workers", 1, "processes that train together")
	f.IntVar(&b.parallelism, "parallelism", 1, "micro-batches that each computes side by side")
	f.BoolVar(&b.pin, "pin", true, "each worker on processors of its own")
	p.backendFlag(f, &b.backend)
	dataFlag(f, &b.data)
	p.optionFlags(f, everyOption)
	b.output = outputFlag(cmd)
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		return b.run(ctx, cmd.OutOrStdout())
	})
	return cmd
}

func (b *stepBench) check() error {
	if b.workers < 1 || b.parallelism < 1 || b.spec.Steps < 1 {
		return usagef("--workers, --parallelism and --steps must be at least 1")
	}
	if v := b.spec.GlobalBatch / max(1, b.spec.MicroBatch); b.workers > v {
		return usagef("--workers %d: a step has %d micro-batches", b.workers, v)
	}
	return b.specFlags.check()
}

func (b *stepBench) run(ctx context.Context, out io.Writer) error {
	if err := b.check(); err != nil {
		return err
	}
	measured := b.spec.Steps
	b.spec.Steps += warmUp
	if _, _, err := b.open(ctx); err != nil {
		return err
	}
	backend, _, err := b.program.resolveBackend(b.backend)
	if err != nil {
		return err
	}
	sockets, err := os.MkdirTemp("", "evenweave-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	members, err := b.start(ctx, memberSetup{Job: job.Job{UUID: "bench", Spec: b.spec, Backend: backend},
		Size: b.workers, Sockets: sockets, Parallelism: b.parallelism, Data: b.data})
	defer func() {
		for _, t := range members {
			t.end()
		}
	}()
	if err != nil {
		return err
	}
	var steps [][]memberReport // by step, by rank
	for range warmUp + measured {
		var all []memberReport
		for rank, t := range members {
			var r memberReport
			if err := t.read(&r); err != nil {
				return fmt.Errorf("rank %d: %w", rank, err)
			}
			all = append(all, r)
		}
		steps = append(steps, all)
	}
	return b.write(out, backend, steps)
}
