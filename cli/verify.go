package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"evenweave/internal/processors"
	"evenweave/internal/verify"
)

// verification is one call of verify.
type verification struct {
	specFlags
	options verify.Options
	trace   bool
	as      string
}

func (p *program) verifyCommand() *cobra.Command {
	v := &verification{}
	v.program, v.spec.Epochs = p, 1
	cmd := &cobra.Command{Use: "verify", Short: "Try whether the task computes the same bits every time", Args: noArgs,
		Long: `Trains a few steps, and computes each micro-batch again, on several lanes, from padding alone, and all of it
in another process. The first tensor that differs is named: the number of workers would change the weights.
With --as it tries another processor too: a worker on such a machine would be refused, or not.`}
	f := cmd.Flags()
	batchFlags(f, &v.spec)
	p.defaults(f)
	f.IntVar(&v.options.Steps, "steps", 2, "updates to try")
	f.IntVar(&v.options.Most, "micro-batches", 4, "micro-batches of each step to try")
	f.IntVar(&v.options.Lanes, "lanes", 3, "micro-batches to compute side by side")
	chosen(f, &v.as, "as", "", "another processor to try too, where this machine can: "+
		strings.Join(processors.Models(), ", "), append([]string{""}, processors.Models()...)...)
	f.BoolVar(&v.trace, "trace", false, "print the hash of everything that is computed, instead of comparing")
	_ = f.MarkHidden("trace") // for the other process
	p.backendFlag(f, &v.backend)
	dataFlag(f, &v.data)
	p.optionFlags(f, everyOption)
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		cmd.SetContext(ctx)
		return v.run(cmd)
	})
	return cmd
}

func (v *verification) run(cmd *cobra.Command) error {
	if v.options.Steps < 1 || v.options.Most < 1 || v.options.Lanes < 1 {
		return usagef("--steps, --micro-batches and --lanes must be at least 1")
	}
	v.keep = 1
	if err := errors.Join(v.check(), processors.CheckEmulated()); err != nil {
		return err
	}
	trace, err := v.compute(cmd)
	if err != nil {
		return fmt.Errorf("task %q: %w", v.program.task.Name, err)
	}
	if v.trace {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(trace)
	}
	where := "in another process"
	err = v.compare(cmd, trace, where, nil, nil)
	if err != nil {
		err = fmt.Errorf("%w; %s", err, verify.Remedy)
	}
	if err == nil && v.as != "" {
		processor := "on another processor (" + v.as + ", emulated)"
		err = v.compareAs(cmd, trace, processor)
		where += " and " + processor
	}
	if err != nil {
		return fmt.Errorf("task %q: %w", v.program.task.Name, err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "equal: %d values, gradients and states of %d steps, computed again, on %d lanes, "+
		"%s\n", len(trace), v.options.Steps, v.options.Lanes, where)
	return nil
}

// compare compares the trace with that of another process. prefix stands before its command line.
func (v *verification) compare(cmd *cobra.Command, trace verify.Trace, where string, prefix, variables []string) error {
	other, err := v.elsewhere(cmd, prefix, variables)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return verify.Differ(trace, other, where)
}

// compareAs compares the trace with that of a process on an emulated processor.
func (v *verification) compareAs(cmd *cobra.Command, trace verify.Trace, where string) error {
	dir, err := os.MkdirTemp("", "evenweave-cpuid-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	variables, fast := processors.Emulate(cmd.Context(), v.as, dir)
	if fast == nil {
		return v.compare(cmd, trace, where, nil, variables)
	}
	prefix, slow := processors.Qemu(v.as)
	if slow != nil {
		return fmt.Errorf("%s: %w; %w", where, fast, slow)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%v: qemu-x86_64 computes as %s instead, slowly\n", fast, v.as)
	return v.compare(cmd, trace, where, prefix, nil)
}

// compute computes the trace in this process.
func (v *verification) compute(cmd *cobra.Command) (verify.Trace, error) {
	sets, _, err := v.open(cmd.Context())
	if err != nil {
		return nil, err
	}
	model, err := v.program.model(cmd.Context(), v.spec, v.backend, false, cmd.ErrOrStderr())
	if err != nil {
		return nil, err
	}
	defer model.Close()
	if err := verify.Check(model, sets, v.spec.MicroBatch, true); err != nil {
		return nil, err
	}
	v.options.Plan, v.options.Metrics = v.spec.Plan(), v.program.task.Metrics
	return verify.Run(cmd.Context(), model, sets.Train, v.options)
}

// elsewhere starts this program again, behind a prefix and with other variables, and returns the trace that it prints.
func (v *verification) elsewhere(cmd *cobra.Command, prefix, variables []string) (verify.Trace, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append(slices.Clone(prefix), executable, "verify", "--trace")
	for name, value := range v.program.optionSettings(everyOption) {
		args = append(args, "--"+name+"="+value)
	}
	for _, name := range []string{"seed", "global-batch", "micro-batch", "steps", "micro-batches", "lanes", "backend",
		"data"} {
		if f := cmd.Flags().Lookup(name); f != nil {
			args = append(args, "--"+name+"="+f.Value.String())
		}
	}
	child := exec.CommandContext(cmd.Context(), args[0], args[1:]...)
	child.Env = append(os.Environ(), variables...)
	var out, said bytes.Buffer
	child.Stdout, child.Stderr = &out, &said
	err = child.Run()
	fmt.Fprint(cmd.ErrOrStderr(), withoutWarnings(said.String()))
	if err != nil {
		return nil, err
	}
	var trace verify.Trace
	if err := json.Unmarshal(out.Bytes(), &trace); err != nil {
		return nil, fmt.Errorf("what it printed: %w", err)
	}
	return trace, nil
}

// withoutWarnings leaves out what qemu-user says in each process and thread: features of the processor that it has not,
// and that this program does not use.
func withoutWarnings(said string) string {
	var kept strings.Builder
	for line := range strings.Lines(said) {
		if !strings.HasPrefix(line, "qemu-x86_64: warning: TCG doesn't support") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}
