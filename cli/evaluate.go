package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/progress"
)

// evaluateOptions are the flags of `evaluate`.
type evaluateOptions struct {
	PNG string `flag:"png" help:"file for the pictures that the evaluation shows"`
}

// evaluate is the command of that name for tasks that have none of their own.
func (p *program) evaluate() evenweave.Command {
	o := &evaluateOptions{}
	return evenweave.Command{
		Name: "evaluate", About: "Measure a checkpoint on the test data", Checkpoint: true, Data: true, Options: o,
		Outputs: []string{"table", "html"},
		Long: `Prints the figures of a checkpoint on the test data, and the tables that the model has to show beside them;
-o html is one page without other files, with its pictures too, and --png has these alone.`,
		Run: func(ctx context.Context, c *evenweave.Invocation) error {
			sets, err := guard.Data(p.task, c.Dir)
			if err != nil {
				return err
			}
			model, ok := c.Model.(evenweave.Evaluator)
			if !ok || sets.Test == nil {
				return fmt.Errorf("task %q cannot be evaluated: its model is no Evaluator, or it has no test data",
					p.task.Name)
			}
			figures, d, err := measure(ctx, model, sets.Test)
			if err != nil {
				return err
			}
			if err := printEvaluation(c, figures, d); err != nil || o.PNG == "" {
				return err
			}
			// after the figures, which took long to find: the path may be a bad one
			if len(d.Galleries) == 0 {
				return fmt.Errorf("--png: the evaluation of task %q shows no pictures", p.task.Name)
			}
			if err := c.Draw(o.PNG, d.Galleries); err != nil {
				return fmt.Errorf("--png: %w", err)
			}
			return nil
		},
	}
}

// measure evaluates a model, with what it has to show if it can.
func measure(ctx context.Context, model evenweave.Evaluator, test evenweave.Data) (figures []evenweave.Figure,
	d evenweave.Details, err error) {
	if detailed, ok := model.(evenweave.DetailedEvaluator); ok {
		return detailed.EvaluateDetails(ctx, test)
	}
	figures, err = model.Evaluate(ctx, test)
	return figures, d, err
}

func printEvaluation(c *evenweave.Invocation, figures []evenweave.Figure, d evenweave.Details) error {
	held, err := progress.Figures(figures)
	if err != nil {
		return err
	}
	about := fmt.Sprintf("step %d, weights %s", c.Step, c.WeightsSHA256)
	switch {
	case c.JSON:
		line := map[string]any{"event": "evaluation", "time": time.Now(), "step": c.Step,
			"weights_sha256": c.WeightsSHA256}
		for _, f := range held {
			line["test_"+f.Name] = f.Value
		}
		tables := tablesOf(d.Tables)
		if len(tables) > 0 {
			line["tables"] = tables
		}
		if n, m := len(figures)-len(held), len(d.Tables)-len(tables); n+m > 0 {
			fmt.Fprintf(c.Stderr, "left out, because JSON cannot hold what is no finite number: %d figures and %d "+
				"tables; -o text shows them\n", n, m)
		}
		return json.NewEncoder(c.Stdout).Encode(line)
	case c.Output == "html":
		return c.Page(c.Stdout, about, figures, d)
	}
	var text strings.Builder
	fmt.Fprintln(&text, about)
	for _, f := range figures {
		fmt.Fprintf(&text, "test %-20s %.4f\n", job.Clean(f.Name), f.Value)
	}
	for _, t := range d.Tables {
		writeTable(&text, t)
	}
	_, err = io.WriteString(c.Stdout, text.String())
	return err
}

// tablesOf are the tables as JSON has them: without what is for people alone, and without those that it cannot hold.
func tablesOf(all []evenweave.Table) (out []evenweave.Table) {
	for _, t := range all {
		t.About, t.Shaded = "", false
		if !slices.ContainsFunc(t.Rows, func(r evenweave.Row) bool {
			return slices.ContainsFunc(r.Cells, func(x float64) bool { return !progress.Finite(x) })
		}) {
			out = append(out, t)
		}
	}
	return out
}

func writeTable(w io.Writer, t evenweave.Table) {
	fmt.Fprintf(w, "\n%s\n", job.Clean(t.Title))
	aligned := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, name := range t.Columns {
		fmt.Fprintf(aligned, "%s\t", job.Clean(name))
	}
	fmt.Fprintln(aligned)
	for _, r := range t.Rows {
		fmt.Fprintf(aligned, "%s\t", job.Clean(r.Name))
		for _, x := range r.Cells {
			fmt.Fprint(aligned, cell(x), "\t")
		}
		fmt.Fprintln(aligned)
	}
	_ = aligned.Flush()
}

// cell is a number of a table: a count in full, any other with five digits.
func cell(x float64) string {
	if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	return strconv.FormatFloat(x, 'g', 5, 64)
}
