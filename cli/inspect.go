package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/verify"
)

// inspectCommand shows what a model's state is made of.
func (p *program) inspectCommand() *cobra.Command {
	v := &verification{}
	v.program, v.spec = p, job.Spec{Epochs: 1, GlobalBatch: 16, MicroBatch: 16, Seed: 1}
	cmd := &cobra.Command{Use: "inspect", Short: "Show the variables of the model, with their roles", Args: noArgs,
		Long: `Builds the model, without data or training, and prints its variables. Their roles: trained by the optimizer; averaged
over the micro-batches of a step; equal: changed by the model, in the same way for each micro-batch; generator: of random
numbers, made from the seed for each micro-batch; kept: of the optimizer, or constant. A model that cannot be exact is
refused, with the variable or the operation, and so is one whose evaluation cannot be built.`}
	f := cmd.Flags()
	f.IntVar(&v.spec.MicroBatch, "micro-batch", v.spec.MicroBatch, "samples of one unit of work")
	p.defaults(f)
	p.backendFlag(f, &v.backend)
	p.optionFlags(f, everyOption)
	output := outputFlag(cmd)
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		if v.spec.MicroBatch < 1 {
			return usagef("--micro-batch %d: must be at least 1", v.spec.MicroBatch)
		}
		v.spec.GlobalBatch, v.keep = v.spec.MicroBatch, 1
		if err := v.check(); err != nil {
			return err
		}
		model, err := p.model(ctx, v.spec, v.backend, true, cmd.ErrOrStderr())
		if err != nil {
			return fmt.Errorf("task %q: %w", p.task.Name, err)
		}
		defer model.Close()
		if err := verify.CheckEvaluation(model); err != nil {
			return fmt.Errorf("task %q: %w", p.task.Name, err)
		}
		return printVariables(cmd.OutOrStdout(), *output, variablesOf(model))
	})
	return cmd
}

// variablesOf is what a model says of its variables, or else its tensors.
func variablesOf(m evenweave.Model) (all []evenweave.Variable) {
	if i, ok := m.(evenweave.Inspector); ok {
		return i.Variables()
	}
	for _, t := range m.Tensors() {
		all = append(all, evenweave.Variable{Name: t.Name, Type: t.Type, Shape: t.Shape, Role: t.Role.String()})
	}
	return all
}

func printVariables(w io.Writer, output string, all []evenweave.Variable) error {
	if output == "json" {
		for _, v := range all {
			shape := append([]int{}, v.Shape...)
			if err := json.NewEncoder(w).Encode(map[string]any{"event": "variable", "time": time.Now(), "name": v.Name,
				"type": v.Type, "shape": shape, "role": v.Role}); err != nil {
				return err
			}
		}
		return nil
	}
	table, counts := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0), map[string]int{}
	fmt.Fprintln(table, "variable\ttype\tshape\trole")
	for _, v := range all {
		fmt.Fprintf(table, "%s\t%s\t%v\t%s\n", job.Clean(v.Name), job.Clean(string(v.Type)), v.Shape, job.Clean(v.Role))
		counts[v.Role] += evenweave.Tensor{Shape: v.Shape}.Elements()
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d variables; %d numbers are trained, %d averaged\n", len(all), counts["trained"],
		counts["averaged"])
	return err
}
