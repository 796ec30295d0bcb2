package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"evenweave/internal/plot"
)

func plotCommand() *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use: "plot", Short: "Draw the learning curve of a run, as PNG or SVG", Args: noArgs,
		Long: `Draws loss, metrics and test figures over epochs from the metrics.jsonl of a run, which may be over or go on.
Blue is training, orange the test set: the color-blind see the difference.`,
	}
	cmd.Flags().StringVar(&dir, "dir", "./run", "run directory")
	cmd.Flags().StringVar(&out, "out", "", "file to write, .png or .svg (default: learning-curve.png in --dir)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			out = filepath.Join(dir, "learning-curve.png")
		}
		if end := strings.ToLower(filepath.Ext(out)); !slices.Contains([]string{".png", ".svg"}, end) {
			return usagef("--out %q: expected a name that ends in .png or .svg", out)
		}
		var curve plot.Curve
		if err := readCurve(cmd, dir, curve.Add); err != nil {
			return err
		}
		if err := curve.Draw(out); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), out)
		return nil
	}
	return cmd
}
