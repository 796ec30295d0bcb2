package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"evenweave/checkpoint"
	"evenweave/cnn"
	"evenweave/evaluate"
	"evenweave/fashionmnist"
	"evenweave/job"
	"evenweave/state"
)

// checkpointFlags name a checkpoint: a file, or the newest of a run directory.
type checkpointFlags struct{ path, dir, backend, data string }

func (c *checkpointFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.path, "checkpoint", "", "checkpoint file")
	cmd.Flags().StringVar(&c.dir, "dir", "./run", "run directory, whose newest valid checkpoint is taken")
	cmd.Flags().StringVar(&c.backend, "backend", "auto", "auto, xla, xla:cuda or go")
	cmd.Flags().StringVar(&c.data, "data", "", "directory of the Fashion-MNIST files (default: where make setup put them)")
}

// load reads the checkpoint and opens the model it belongs to.
func (c *checkpointFlags) load(cmd *cobra.Command) (checkpoint.Manifest, *state.State, *cnn.Model, error) {
	none := checkpoint.Manifest{}
	path := c.path
	if path == "" {
		store, err := checkpoint.Open(filepath.Join(c.dir, "checkpoints"), checkpoint.Options{Damaged: func(e *checkpoint.DamagedError) {
			fmt.Fprintln(cmd.ErrOrStderr(), "skipped:", e)
		}})
		if err != nil {
			return none, nil, nil, err
		}
		newest, err := store.Latest(cmd.Context())
		if errors.Is(err, checkpoint.ErrNone) {
			return none, nil, nil, fmt.Errorf("no checkpoint in %s: train first, or name another --dir or a --checkpoint", c.dir)
		}
		if err != nil {
			return none, nil, nil, err
		}
		path = newest.Path
	}
	m, payload, err := checkpoint.Read(cmd.Context(), path)
	if err != nil {
		return none, nil, nil, err
	}
	defer payload.Close()
	var spec job.Spec
	if err := json.Unmarshal(m.Spec, &spec); err != nil {
		return none, nil, nil, fmt.Errorf("%s: spec: %w", path, err)
	}
	values := 0
	for _, t := range m.Tensors {
		size := 1
		for _, d := range t.Shape {
			size *= d
		}
		values = max(values, t.Offset+size)
	}
	s, err := state.Read(payload, state.Size(values, spec.Samples))
	if err != nil {
		return none, nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	o := options(job.Job{Spec: spec, Backend: c.backend})
	o.EvaluateOnly = true
	model, err := cnn.Open(o)
	if err != nil {
		return none, nil, nil, err
	}
	if notice := model.Notice(); notice != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), notice)
	}
	return m, s, model, nil
}

func evaluateCommand() *cobra.Command {
	var from checkpointFlags
	cmd := &cobra.Command{Use: "evaluate", Short: "Measure a checkpoint on the 10,000 test images", Args: noArgs,
		Long: "Prints accuracy, loss, a table by class and the confusion matrix of a checkpoint on the 10,000 test images."}
	from.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		dir, err := fashionmnist.Find(from.data)
		if err != nil {
			return err
		}
		_, test, err := fashionmnist.Load(dir)
		if err != nil {
			return err
		}
		m, s, model, err := from.load(cmd)
		if err != nil {
			return err
		}
		defer model.Close()
		r, err := examine(cmd.Context(), model, s.Values, test)
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
			}{"evaluation", time.Now(), m.Step, m.WeightsSHA256, r})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "step %d, weights %s\n", m.Step, m.WeightsSHA256)
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
		_, s, model, err := from.load(cmd)
		if err != nil {
			return err
		}
		defer model.Close()
		for _, name := range args {
			guesses, err := guess(model, s.Values, name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if *output == "json" {
				_ = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"event": "prediction", "time": time.Now(), "image": name, "guesses": guesses})
			} else {
				fmt.Fprintln(cmd.OutOrStdout(), evaluate.FormatGuesses(name, guesses))
			}
		}
		return nil
	}
	return cmd
}

func guess(model *cnn.Model, values []float32, name string) ([]evaluate.Guess, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	image, err := evaluate.Decode(f)
	if err != nil {
		return nil, err
	}
	scores := make([]float32, fashionmnist.NumClasses)
	if err := model.Logits(values, image, scores); err != nil {
		return nil, err
	}
	return evaluate.Top(scores, fashionmnist.Classes(), 3)
}
