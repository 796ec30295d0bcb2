package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/regular"
	"evenweave/internal/safetensors"
	"evenweave/internal/state"
)

// tensorsFormat is the format that every task's checkpoints are exported in.
const tensorsFormat = "safetensors"

func (p *program) exportCommand() *cobra.Command {
	var from checkpointFlags
	var format, out string
	var all bool
	cmd := &cobra.Command{
		Use: "export", Short: "Write a checkpoint as a file that other programs read", Args: noArgs,
		Long: `Formats:
  safetensors  the weights as named tensors, with equal bits; --all adds what the optimizer keeps
  onnx         the model for inference, of tasks whose model can be written so (the built-in one can)
The file holds task, step and weights_sha256, and is put in place in one go.`,
	}
	from.register(p, cmd)
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&format, "format", tensorsFormat, "safetensors, or a format of the task's model: onnx")
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: model.FORMAT in --dir)")
	cmd.Flags().BoolVar(&all, "all", false, "safetensors: with the tensors that the optimizer keeps")
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) (err error) {
		if all && format != tensorsFormat {
			return usagef("--all: only for --format %s", tensorsFormat)
		}
		if format == "" || strings.ContainsAny(format, "/\\.") {
			return usagef("--format %q: must be %s or a format of the task's model", format, tensorsFormat)
		}
		if out == "" {
			out = filepath.Join(from.dir, "model."+format)
		}
		var written provenance
		if format == tensorsFormat {
			written, err = exportTensors(ctx, from, out, all, cmd.ErrOrStderr())
		} else {
			written, err = exportModel(ctx, from, out, format, cmd.ErrOrStderr())
		}
		if err != nil {
			return err
		}
		if *output == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"event": "export", "time": time.Now(),
				"path": out, "format": format, "step": written.step, "weights_sha256": written.weights})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), out)
		return err
	})
	return cmd
}

// provenance says where an exported file comes from.
type provenance struct {
	task    string
	step    int64
	weights string
}

func (p provenance) texts() map[string]string {
	return map[string]string{"task": p.task, "step": strconv.FormatInt(p.step, 10), "weights_sha256": p.weights}
}

// exportTensors needs no model, so no backend and none of the task's options.
func exportTensors(ctx context.Context, from checkpointFlags, out string, all bool, warn io.Writer) (p provenance,
	err error) {
	path := from.path
	if path == "" {
		if path, err = newestCheckpoint(ctx, from.dir, warn); err != nil {
			return p, err
		}
	}
	c, err := checkpoint.Load(ctx, path)
	if err != nil {
		return p, err
	}
	var tensors []safetensors.Tensor
	for i, t := range c.State.Layout.Tensors {
		if (all || t.Role != evenweave.Kept) && !strings.HasPrefix(t.Name, state.Reserved) {
			tensors = append(tensors, safetensors.Tensor{Tensor: t, Data: c.State.Tensor(i)})
		}
	}
	p = provenance{c.Task, c.Manifest.Step, c.WeightsSHA256}
	return p, regular.ReplaceBy(out, func(w io.Writer) error { return safetensors.Write(w, p.texts(), tensors) })
}

func exportModel(ctx context.Context, from checkpointFlags, out, format string, warn io.Writer) (p provenance,
	err error) {
	l, err := from.load(ctx, warn)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, l.Model.Close()) }()
	p = provenance{from.program.task.Name, l.Step, l.WeightsSHA256}
	model, can := l.Model.(evenweave.Exporter)
	formats := []string{tensorsFormat}
	if can {
		formats = append(formats, model.Exports()...)
	}
	if !slices.Contains(formats, format) {
		return p, usagef("--format %s: task %q has %s", job.Clean(format), p.task, strings.Join(formats, ", "))
	}
	return p, regular.ReplaceBy(out, func(w io.Writer) error { return model.Export(w, format, p.texts()) })
}
