package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave/allreduce/bench"
	"evenweave/internal/options"
	"evenweave/worker"
)

// benchCommand is in the program although a cluster never runs it: a machine or a network is measured by the program
// that will train there. It adds no dependency.
func (p *program) benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure the parts: the ring, the step", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(p.benchAllreduceCommand(), benchChildCommand(), p.benchStepCommand(), p.benchStepMemberCommand())
	return cmd
}

// allreduceBench is a call of `bench allreduce`.
type allreduceBench struct {
	specFlags
	bench.Options
	sizes []string
}

func (p *program) benchAllreduceCommand() *cobra.Command {
	b := &allreduceBench{}
	b.program, b.keep, b.spec.Epochs = p, 1, 1
	o := &b.Options
	cmd := &cobra.Command{
		Use: "allreduce", Args: noArgs, Short: "Measure the ring, with the bytes of a step of the task or with others",
		Long: `Measures all-reduces of what this task's step sums: its gradient as int32, the bounds of its blocks, loss and metrics, and a
few words for each sample, micro-batch and worker. So the sizes follow from the task's options, --global-batch and --micro-batch;
--bytes gives others, from which a cost model is fitted too. By default as separate processes on this machine's loopback,
beside plain TCP that moves the same bytes in the same pattern; with --net over an emulated network in virtual time, up to
64 ranks. The other parts of a step: ` + "`bench step`" + `.

An option of the task that has the name of a flag here keeps its default.`,
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Workers, "workers", []int{2, 4, 8}, "world sizes")
	f.StringSliceVar(&b.sizes, "bytes", nil, "buffer sizes instead of the task's: 1K,888K,64M; K, M and G count in "+
		"thousands")
	f.StringVar(&o.Network, "net", "", "emulate a network: lan or wan; empty: loopback")
	f.DurationVar(&o.Time, "time", time.Second, "to spend on each figure")
	f.IntVar(&o.Segment, "segment", 0, "bytes of a segment; 0: the ring's default")
	f.IntVar(&o.Window, "window", 0, "bytes under way; 0: the ring's default")
	f.BoolVar(&o.Secure, "tls", false, "measure the ring over TLS and over Unix sockets too, in turn")
	f.BoolVar(&o.Pin, "pin", false, "each member on a processor of its own")
	o.Output = "table"
	f.VarP(choice{&o.Output, []string{"table", "json"}}, "output", "o", "table or json")
	batchFlags(f, &b.spec)
	p.defaults(f)
	p.backendFlag(f, &b.backend)
	p.optionFlags(f, func(field *options.Field) bool { return everyOption(field) && f.Lookup(field.Flag) == nil })
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		return b.run(ctx, cmd)
	})
	return cmd
}

func (b *allreduceBench) run(ctx context.Context, cmd *cobra.Command) error {
	for _, s := range b.sizes {
		n, err := parseBytes(s)
		if err != nil {
			return err
		}
		b.Bytes = append(b.Bytes, n)
	}
	if err := b.Options.Check(); err != nil {
		return usageError{err}
	}
	executable, err := os.Executable()
	if err != nil {
		return err
	}
	b.Child = []string{executable, "bench", "member"}
	if len(b.Bytes) == 0 {
		if err := b.ofTask(ctx, cmd); err != nil {
			return err
		}
	}
	return bench.Run(ctx, b.Options, cmd.OutOrStdout())
}

// ofTask takes the sizes from the task's model, which is opened for its layout.
func (b *allreduceBench) ofTask(ctx context.Context, cmd *cobra.Command) error {
	if err := b.check(); err != nil {
		return err
	}
	task := b.program.task
	model, err := b.program.model(ctx, b.spec, b.backend, true, cmd.ErrOrStderr())
	if err != nil {
		return fmt.Errorf("task %q: %w", task.Name, err)
	}
	tensors := model.Tensors()
	if err := model.Close(); err != nil {
		return err
	}
	if _, err := worker.StepBytes(tensors, len(task.Metrics), b.spec.Plan(), 1); err != nil {
		return fmt.Errorf("task %q: %w", task.Name, err)
	}
	b.Task, b.Step = task.Name, func(workers int) int {
		n, _ := worker.StepBytes(tensors, len(task.Metrics), b.spec.Plan(), workers)
		return n
	}
	return nil
}

func benchChildCommand() *cobra.Command {
	return &cobra.Command{Use: "member", Hidden: true, Args: noArgs, Short: "Be one member of a benchmark",
		RunE: func(cmd *cobra.Command, _ []string) error { return bench.Child(cmd.Context(), os.Stdin, os.Stdout) }}
}

// parseBytes reads "444K" as 444,000.
func parseBytes(s string) (int, error) {
	digits, factor := strings.TrimRight(strings.ToUpper(s), "KMGB"), 1
	switch unit := strings.TrimSuffix(strings.ToUpper(s)[len(digits):], "B"); unit {
	case "K":
		factor = 1e3
	case "M":
		factor = 1e6
	case "G":
		factor = 1e9
	case "":
	default:
		return 0, usagef("--bytes %q: want a number with K, M or G", s)
	}
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 {
		return 0, usagef("--bytes %q: want a number of at least 1, with K, M or G", s)
	}
	return n * factor, nil
}
