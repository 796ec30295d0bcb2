package cli

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave/allreduce/bench"
)

// benchCommand is in the program although a cluster never runs it: a machine or a network is measured by the program
// that will train there. It adds no dependency.
func benchCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure the parts: the ring, the step", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(benchAllreduceCommand(), benchChildCommand())
	return cmd
}

func benchAllreduceCommand() *cobra.Command {
	var o bench.Options
	var sizes []string
	cmd := &cobra.Command{
		Use: "allreduce", Args: noArgs, Short: "Measure the ring as processes on loopback beside plain TCP, or over " +
			"an emulated network",
		Long: `Measures all-reduces of several sizes: by default as separate processes on this machine's loopback, beside plain TCP that moves
the same bytes in the same pattern; with --net over an emulated network in virtual time, up to 64 ranks.`,
	}
	f := cmd.Flags()
	f.IntSliceVar(&o.Workers, "workers", []int{2, 4, 8}, "world sizes")
	f.StringSliceVar(&sizes, "bytes", []string{"1K", "444K", "888K", "4M", "64M"}, "buffer sizes; K, M and G count "+
		"in thousands")
	f.StringVar(&o.Network, "net", "", "emulate a network: lan or wan; empty: loopback")
	f.DurationVar(&o.Time, "time", time.Second, "to spend on each figure")
	f.IntVar(&o.Segment, "segment", 0, "bytes of a segment; 0: the ring's default")
	f.IntVar(&o.Window, "window", 0, "bytes under way; 0: the ring's default")
	f.BoolVar(&o.Secure, "tls", false, "measure the ring over TLS and over Unix sockets too, in turn")
	f.BoolVar(&o.Pin, "pin", false, "each member on a processor of its own")
	o.Output = "table"
	f.VarP(choice{&o.Output, []string{"table", "json"}}, "output", "o", "table or json")
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		for _, s := range sizes {
			n, err := parseBytes(s)
			if err != nil {
				return err
			}
			o.Bytes = append(o.Bytes, n)
		}
		if err := o.Check(); err != nil {
			return usageError{err}
		}
		executable, err := os.Executable()
		if err != nil {
			return err
		}
		o.Child = []string{executable, "bench", "member"}
		return bench.Run(ctx, o, cmd.OutOrStdout())
	})
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
