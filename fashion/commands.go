package fashion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"evenweave"
	"evenweave/evaluation"
	"evenweave/fashion/evaluate"
)

func (o *options) commands() []evenweave.Command {
	measure := &evaluateOptions{}
	return []evenweave.Command{
		{
			Name: "evaluate", About: "Measure a checkpoint on the 10,000 test images", Checkpoint: true, Data: true,
			Outputs: []string{"table", "html"}, Options: measure,
			Run: func(ctx context.Context, c *evenweave.Invocation) error { return o.evaluate(ctx, c, measure.PNG) },
			Long: `Prints accuracy, loss, how far confidence can be trusted, a table by class and the confusion matrix of a checkpoint;
of a run with --classes, on the test images of these. The most confident mistakes and the reliability diagram are on
-o html, which is one page without other files, and in --png.`,
		},
		predictCommand(),
	}
}

// evaluateOptions are the flags of `evaluate`.
type evaluateOptions struct {
	PNG string `flag:"png" help:"file for a picture of the most confident mistakes and of calibration"`
}

func (o *options) evaluate(ctx context.Context, c *evenweave.Invocation, pngFile string) error {
	sets, err := o.data(c.Dir)
	if err != nil {
		return err
	}
	if sets.Test == nil {
		return errors.New("there are no test images beside those to train on: name a directory that has them with " +
			"--data")
	}
	content, err := contentOf(sets.Test)
	if err != nil {
		return err
	}
	r, err := c.Model.(*network).compare(ctx, content)
	if err != nil {
		return err
	}
	shown, err := details(r, content.Images)
	if err != nil {
		return err
	}
	if err := printResult(c, r, shown); err != nil || pngFile == "" {
		return err
	}
	// after the figures, which took long to find: the path may be a bad one
	if err := c.Draw(pngFile, append(byLabel(r, shown.Galleries[0].Pictures), r.Calibration())); err != nil {
		return fmt.Errorf("--png: %w", err)
	}
	return nil
}

func printResult(c *evenweave.Invocation, r evaluation.Result, shown evenweave.Details) error {
	about := fmt.Sprintf("step %d, weights %s", c.Step, c.WeightsSHA256)
	switch {
	case c.JSON:
		return json.NewEncoder(c.Stdout).Encode(struct {
			Event   string    `json:"event"`
			Time    time.Time `json:"time"`
			Step    int64     `json:"step"`
			Weights string    `json:"weights_sha256"`
			// as the events of a run and `evaluate` of other tasks name them, beside accuracy and loss of Result
			TestAccuracy float64 `json:"test_accuracy"`
			TestLoss     float64 `json:"test_loss"`
			evaluation.Result
		}{"evaluation", time.Now(), c.Step, c.WeightsSHA256, r.Accuracy, r.Loss, r})
	case c.Output == "html":
		return c.Page(c.Stdout, about, figures(r), shown)
	}
	fmt.Fprintln(c.Stdout, about)
	_, err := io.WriteString(c.Stdout, evaluate.Table(r))
	return err
}

// byLabel are the mistakes in rows by the class that they are of, each with what it was taken for.
func byLabel(r evaluation.Result, pictures []evenweave.Picture) []evenweave.Gallery {
	rows := make([]evenweave.Gallery, len(r.Classes))
	for i, m := range r.Mistakes {
		row := &rows[m.Label]
		row.Title = r.Classes[m.Label].Name
		row.Pictures = append(row.Pictures, evenweave.Picture{Image: pictures[i].Image,
			Caption: r.Classes[m.Predicted].Name})
	}
	return slices.DeleteFunc(rows, func(g evenweave.Gallery) bool { return len(g.Pictures) == 0 })
}
