package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"evenweave/internal/progress"
	"evenweave/internal/regular"
	"evenweave/internal/web"
)

func reportCommand() *cobra.Command {
	var dir, out string
	cmd := &cobra.Command{
		Use:   "report",
		Short: "Write the live page of a run, as it is now, as one file",
		Long: `Writes curves, generations, members, the timeline of the cluster, checkpoints and evaluations of a run as one HTML
file that needs no server and no network. The run may be over, or go on.`,
		Args: noArgs,
	}
	cmd.Flags().StringVar(&dir, "dir", "./run", "run directory")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: report.html in --dir)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "" {
			out = filepath.Join(dir, "report.html")
		}
		page := web.New()
		add, done, err := page.Recall(dir)
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", err)
		}
		if err := readCurve(cmd, dir, add); err != nil {
			return err
		}
		done()
		if err := regular.ReplaceBy(out, page.WriteReport); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), out)
		return nil
	}
	return cmd
}

// readCurve gives each the records of a run's learning curve, and warns of damaged lines.
func readCurve(cmd *cobra.Command, dir string, each func(progress.Record)) error {
	damaged, err := progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"), each)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s holds no run: there is no metrics.jsonl; name a run directory with --dir", dir)
	}
	if err == nil && damaged.Lines > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d damaged lines of metrics.jsonl are left out, the first is "+
			"line %d\n", damaged.Lines, damaged.First)
	}
	return err
}
