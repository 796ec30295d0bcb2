package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
	"evenweave/internal/job"
	"evenweave/internal/regular"
	"evenweave/internal/state"
)

// checkpointFlags name a checkpoint: a file, or the newest of a run directory.
type checkpointFlags struct{ path, dir, backend, data string }

func (c *checkpointFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.path, "checkpoint", "", "checkpoint file")
	cmd.Flags().StringVar(&c.dir, "dir", "./run", "run directory, whose newest valid checkpoint is taken")
	cmd.Flags().StringVar(&c.backend, "backend", "auto", "auto, xla, xla:cuda or go")
	cmd.Flags().StringVar(&c.data, "data", "", "directory of the Fashion-MNIST files (default: where make setup put them)")
}

// opened is a checkpoint with the model that it belongs to.
type opened struct {
	*checkpoint.Checkpoint
	spec  job.Spec
	model *cnn.Model
}

// open reads the checkpoint and opens its model, for evaluation only. The caller closes the model.
func (c *checkpointFlags) open(cmd *cobra.Command) (*opened, error) {
	path := c.path
	if path == "" {
		var err error
		if path, err = newestCheckpoint(cmd.Context(), c.dir, cmd.ErrOrStderr()); err != nil {
			return nil, err
		}
	}
	o, err := readCheckpoint(cmd.Context(), path)
	if err != nil {
		return nil, err
	}
	opts := options(job.Job{Spec: o.spec, Backend: c.backend})
	opts.EvaluateOnly = true
	if o.model, err = cnn.Open(opts); err != nil {
		return nil, err
	}
	if err := o.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), o.model.Close())
	}
	_, notice, err := o.model.Backend()
	if err != nil {
		return nil, errors.Join(err, o.model.Close())
	}
	if notice != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), notice)
	}
	return o, nil
}

// load gives the model the checkpoint's state.
func (o *opened) load() error {
	layout, err := state.NewLayout(o.model.Tensors())
	if err != nil {
		return err
	}
	if !layout.Equal(o.State.Layout) {
		return fmt.Errorf("it holds other tensors than model %q has", modelName)
	}
	return layout.WriteImage(o.model, o.State.Image)
}

// newestCheckpoint finds the newest valid one of a run directory; what it skips is told to warn.
func newestCheckpoint(ctx context.Context, dir string, warn io.Writer) (string, error) {
	store, err := checkpoint.Open(filepath.Join(dir, "checkpoints"), checkpoint.Options{Damaged: func(e *checkpoint.DamagedError) {
		fmt.Fprintln(warn, "skipped:", e)
	}})
	if err != nil {
		return "", err
	}
	newest, err := store.Latest(ctx)
	if errors.Is(err, checkpoint.ErrNone) {
		return "", fmt.Errorf("no checkpoint in %s: train first, or name another directory or file", dir)
	}
	if err != nil {
		return "", err
	}
	return newest.Path, nil
}

// readCheckpoint reads a file without opening its model.
func readCheckpoint(ctx context.Context, path string) (*opened, error) {
	c, err := checkpoint.Load(ctx, path)
	if err != nil {
		return nil, err
	}
	o := &opened{Checkpoint: c}
	if err := json.Unmarshal(c.Spec, &o.spec); err != nil {
		return nil, fmt.Errorf("%s: spec: %w", path, err)
	}
	if err := o.spec.Validate(); err != nil {
		return nil, fmt.Errorf("%s: spec: %w", path, err)
	}
	if got := c.State.Ledger.Samples(); got != o.spec.Samples {
		return nil, fmt.Errorf("%s: its state was trained on %d samples, its spec names %d", path, got, o.spec.Samples)
	}
	return o, nil
}

func evaluateCommand() *cobra.Command {
	var from checkpointFlags
	cmd := &cobra.Command{Use: "evaluate", Short: "Measure a checkpoint on the 10,000 test images", Args: noArgs,
		Long: `Prints accuracy, loss, a table by class and the confusion matrix of a checkpoint on the 10,000 test images;
of a run with --classes, on the test images of these.`}
	from.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		o, err := from.open(cmd)
		if err != nil {
			return err
		}
		defer o.model.Close()
		_, test, err := loadData(from.data, o.spec.Classes)
		if err != nil {
			return err
		}
		r, err := examine(cmd.Context(), o.model, samples{Dataset: test})
		if err != nil {
			return err
		}
		if *output == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(struct {
				Event   string    `json:"event"`
				Time    time.Time `json:"time"`
				Step    int64     `json:"step"`
				Weights string    `json:"weights_sha256"`
				evaluate.Result
			}{"evaluation", time.Now(), o.Manifest.Step, o.WeightsSHA256, r})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "step %d, weights %s\n", o.Step, o.WeightsSHA256)
		return r.WriteTable(cmd.OutOrStdout())
	}
	return cmd
}

func predictCommand() *cobra.Command {
	var from checkpointFlags
	cmd := &cobra.Command{Use: "predict IMAGE...", Short: "Classify pictures (PNG, JPEG, GIF) with a checkpoint",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("predict takes at least one image file")
			}
			return nil
		}}
	from.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		o, err := from.open(cmd)
		if err != nil {
			return err
		}
		defer o.model.Close()
		var failed error // one bad picture does not keep the others from being classified
		for _, name := range args {
			guesses, err := guess(cmd.Context(), o.model, name)
			if cmd.Context().Err() != nil {
				return context.Cause(cmd.Context())
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
				continue
			}
			if *output == "json" {
				_ = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"event": "prediction", "time": time.Now(), "image": name, "guesses": guesses})
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), evaluate.FormatGuesses(name, guesses))
			}
		}
		return failed
	}
	return cmd
}

func guess(ctx context.Context, model *cnn.Model, name string) ([]evaluate.Guess, error) {
	f, _, err := regular.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := evaluate.Decode(ctx, f)
	if err != nil {
		return nil, err
	}
	scores := make([]float32, fashionmnist.NumClasses)
	if err := model.Logits(image, scores); err != nil {
		return nil, err
	}
	return evaluate.Top(scores, fashionmnist.Classes(), 3)
}
