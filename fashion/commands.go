package fashion

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"evenweave"
	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
)

func (o *options) commands() []evenweave.Command {
	step := &benchOptions{Backend: "auto", MicroBatch: 16, Batch: 128, Parallelism: 1, Time: 5 * time.Second}
	return []evenweave.Command{
		{
			Name: "evaluate", About: "Measure a checkpoint on the 10,000 test images", Checkpoint: true, Data: true,
			Run: o.evaluate,
			Long: `Prints accuracy, loss, a table by class and the confusion matrix of a checkpoint on them;
of a run with --classes, on the test images of these.`,
		},
		predictCommand(),
		{
			Name: "bench step", About: "Measure gradients and updates of the model on this machine", Options: step,
			Run: step.run,
			Long: `Measures images/s and ms of a gradient call and an update, beside a matrix product of the same run,
which is the machine's limit.`,
		},
	}
}

func (o *options) evaluate(ctx context.Context, c *evenweave.Invocation) error {
	sets, err := o.data(c.Dir)
	if err != nil {
		return err
	}
	r, err := c.Model.(*network).measure(ctx, sets.Test)
	if err != nil {
		return err
	}
	if c.JSON {
		return json.NewEncoder(c.Stdout).Encode(struct {
			Event   string    `json:"event"`
			Time    time.Time `json:"time"`
			Step    int64     `json:"step"`
			Weights string    `json:"weights_sha256"`
			evaluate.Result
		}{"evaluation", time.Now(), c.Step, c.WeightsSHA256, r})
	}
	fmt.Fprintf(c.Stdout, "step %d, weights %s\n", c.Step, c.WeightsSHA256)
	return r.WriteTable(c.Stdout)
}

// benchOptions are the flags of `bench step`.
type benchOptions struct {
	Backend     string        `flag:"backend" help:"auto, xla, xla:cuda or go"`
	MicroBatch  int           `flag:"micro-batch" help:"samples of one gradient call"`
	Batch       int           `flag:"batch" help:"samples of one step"`
	Parallelism int           `flag:"parallelism" help:"calls side by side"`
	Time        time.Duration `flag:"time" help:"to measure for"`
}

// Validate implements evenweave.Validator.
func (o *benchOptions) Validate() error {
	if o.MicroBatch < 1 || o.Parallelism < 1 || o.Batch < o.MicroBatch || o.Batch%o.MicroBatch != 0 {
		return fmt.Errorf("--micro-batch %d, --parallelism %d, --batch %d: must be at least 1, and the micro-batch "+
			"divide the batch", o.MicroBatch, o.Parallelism, o.Batch)
	}
	return nil
}

func (o *benchOptions) run(ctx context.Context, c *evenweave.Invocation) error {
	return cnn.Bench(ctx, cnn.BenchOptions{
		Backend: o.Backend, MicroBatch: o.MicroBatch, Batch: o.Batch, Parallelism: o.Parallelism, Duration: o.Time,
		JSON: c.JSON,
	}, c.Stdout)
}
