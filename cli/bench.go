package cli

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave/allreduce/bench"
	"evenweave/fashion/cnn"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure the parts: the ring, the step", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(benchAllreduceCommand(), benchStepCommand(), benchChildCommand())
	return cmd
}

func benchAllreduceCommand() *cobra.Command {
	var o bench.Options
	var sizes []string
	cmd := &cobra.Command{
		Use: "allreduce", Args: noArgs, Short: "Measure the ring as processes on loopback beside plain TCP, or over an emulated network",
		Long: `Measures all-reduces of several sizes: by default as separate processes on this machine's loopback, beside plain TCP that moves
the same bytes in the same pattern; with --net over an emulated network in virtual time, up to 64 ranks.`,
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Workers, "workers", []int{2, 4, 8}, "world sizes")
	f.StringSliceVar(&sizes, "bytes", []string{"1K", "444K", "888K", "4M", "64M"}, "buffer sizes; K, M and G count in thousands")
	f.StringVar(&o.Type, "dtype", "int64", "int64 or float32")
	f.StringVar(&o.Network, "net", "", "emulate a network: lan or wan; empty: loopback")
	f.DurationVar(&o.Time, "time", time.Second, "to spend on each figure")
	f.IntVar(&o.Segment, "segment", 0, "bytes of a segment; 0: the ring's default")
	f.IntVar(&o.Window, "window", 0, "bytes under way; 0: the ring's default")
	f.BoolVar(&o.Pin, "pin", false, "each member on a processor of its own")
	f.StringVarP(&o.Output, "output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for _, s := range sizes {
			n, err := parseBytes(s)
			if err != nil {
				return err
			}
			o.Bytes = append(o.Bytes, n)
		}
		if o.Output != "table" && o.Output != "json" {
			return usagef("--output %q: must be table or json", o.Output)
		}
		if err := o.Check(); err != nil {
			return usageError{err}
		}
		executable, err := os.Executable()
		if err != nil {
			return err
		}
		o.Child = []string{executable, "bench", "member"}
		ctx, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		return unlessInterrupted(ctx, bench.Run(ctx, o, cmd.OutOrStdout()))
	}
	return cmd
}

func benchStepCommand() *cobra.Command {
	var o cnn.BenchOptions
	cmd := &cobra.Command{
		Use: "step", Args: noArgs, Short: "Measure gradients and updates of the model on this machine",
		Long: "Measures images/s and ms of a gradient call and an update, beside a matrix product of the same run as the machine's limit.",
	}
	f := cmd.Flags()
	f.StringVar(&o.Backend, "backend", "auto", "auto, xla, xla:cuda or go")
	f.IntVar(&o.MicroBatch, "micro-batch", 16, "samples of one gradient call")
	f.IntVar(&o.Batch, "batch", 128, "samples of one step")
	f.IntVar(&o.Parallelism, "parallelism", 1, "calls side by side")
	f.DurationVar(&o.Duration, "time", 5*time.Second, "to measure for")
	output := f.StringP("output", "o", "table", "table or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *output != "table" && *output != "json" {
			return usagef("--output %q: must be table or json", *output)
		}
		if o.MicroBatch < 1 || o.Parallelism < 1 || o.Batch < o.MicroBatch || o.Batch%o.MicroBatch != 0 {
			return usagef("--micro-batch %d, --parallelism %d, --batch %d: must be at least 1, and the micro-batch divide the batch", o.MicroBatch, o.Parallelism, o.Batch)
		}
		o.JSON = *output == "json"
		ctx, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		return unlessInterrupted(ctx, cnn.Bench(ctx, o, cmd.OutOrStdout()))
	}
	return cmd
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
