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
		records, err := readCurve(cmd, dir)
		if err != nil {
			return err
		}
		page := web.New()
		if err := page.Read(dir, records); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning:", err)
		}
		if err := regular.ReplaceBy(out, page.WriteReport); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), out)
		return nil
	}
	return cmd
}

// readCurve reads the learning curve of a run, and warns of damaged lines.
func readCurve(cmd *cobra.Command, dir string) ([]progress.Record, error) {
	records, damaged, err := progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no run: there is no metrics.jsonl; name a run directory with --dir", dir)
	}
	if err != nil {
		return nil, err
	}
	if len(damaged) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %d damaged lines of metrics.jsonl are left out, the first is "+
			"line %d\n", len(damaged), damaged[0])
	}
	return records, nil
}
