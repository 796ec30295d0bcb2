package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/options"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/worker"
)

// program is the command line of one task.
type program struct {
	task    *evenweave.Task
	options *options.Set
	name    string          // of the executable
	asked   <-chan struct{} // not nil in a child of train; closed to ask it to end in good order
	later   []func() error  // adds the flags of options to a command that has its own
}

// newProgram checks what the task's author has written.
func newProgram(t *evenweave.Task, name string, asked <-chan struct{}) (*program, error) {
	set, err := options.Of(t.Options)
	if err != nil {
		return nil, fmt.Errorf("task %q: %w", t.Name, err)
	}
	if err := job.CheckName(t.Name); err != nil {
		return nil, fmt.Errorf("the task's name: %w", err)
	}
	if err := progress.CheckMetrics(t.Metrics); err != nil {
		return nil, fmt.Errorf("task %q: %w", t.Name, err)
	}
	switch {
	case t.Data == nil || t.Model == nil:
		return nil, fmt.Errorf("task %q: it needs Data and Model", t.Name)
	case (t.Backends.Resolve != nil) != (len(t.Backends.Names) > 0):
		return nil, fmt.Errorf("task %q: of its Backends, Names and Resolve need each other", t.Name)
	}
	p := &program{task: t, options: set, name: name, asked: asked}
	return p, p.checkDefaults()
}

// checkDefaults refuses what Task.Defaults cannot set.
func (p *program) checkDefaults() error {
	f := pflag.NewFlagSet("", pflag.ContinueOnError)
	new(specFlags).trainerFlags(f)
	for name, value := range p.task.Defaults {
		if flag := f.Lookup(name); flag == nil {
			var all []string
			f.VisitAll(func(flag *pflag.Flag) { all = append(all, flag.Name) })
			return fmt.Errorf("task %q: Defaults sets --%s: it can set %s", p.task.Name, name, strings.Join(all, ", "))
		} else if err := flag.Value.Set(value); err != nil {
			return fmt.Errorf("task %q: Defaults sets --%s to %q: %w", p.task.Name, name, value, err)
		}
	}
	return nil
}

// everyOption chooses all options: they are flags where a job is created. ownOption chooses those outside the spec,
// which each process sets for itself.
func everyOption(f *options.Field) bool { return f.Flag != "" }
func ownOption(f *options.Field) bool   { return f.Flag != "" && f.Spec == "" && !f.Create }

// optionFlags adds the flags of the task's options, after all commands have their own.
func (p *program) optionFlags(f *pflag.FlagSet, which func(*options.Field) bool) {
	p.later = append(p.later, func() error { return p.addFlags(f, p.options, which) })
}

// addFlags adds the flags of options. A name that the command has already is the error of the task's author: of all
// commands, for each process makes them all.
func (p *program) addFlags(f *pflag.FlagSet, set *options.Set, which func(*options.Field) bool) error {
	for _, field := range set.Fields() {
		if !which(field) {
			continue
		}
		if f.Lookup(field.Flag) != nil {
			return fmt.Errorf("task %q: its option --%s has the name of a flag of the trainer's: choose another name",
				p.task.Name, field.Flag)
		}
		flag := f.VarPF(field, field.Flag, "", field.Help)
		if field.IsBool() {
			flag.NoOptDefVal = "true"
		}
	}
	return nil
}

// optionSettings are the values of those options, for a child process.
func (p *program) optionSettings(which func(*options.Field) bool) map[string]string {
	settings := map[string]string{}
	for _, field := range p.options.Fields() {
		if which(field) {
			settings[field.Flag] = field.String()
		}
	}
	return settings
}

// validate has the task check its options.
func (p *program) validate() error { return validateOptions(p.task.Options) }

func validateOptions(o any) error {
	if v, ok := o.(evenweave.Validator); ok {
		if err := v.Validate(); err != nil {
			return usageError{err}
		}
	}
	return nil
}

// adopt sets the options to the job's values.
func (p *program) adopt(spec job.Spec) error {
	if spec.Task != p.task.Name {
		return fmt.Errorf("the job's task is %q, this program's is %q: use the program that created the job",
			spec.Task, p.task.Name)
	}
	if err := p.options.Load(spec.Options); err != nil {
		return err
	}
	if err := p.validate(); err != nil {
		return fmt.Errorf("the job's options: %w", err)
	}
	return nil
}

// model opens the task's model on the backend that this machine has for a name; warn is for people.
func (p *program) model(ctx context.Context, spec job.Spec, backend string, evaluateOnly bool, warn io.Writer) (
	evenweave.Model, error) {
	backend, notice, err := p.resolveBackend(backend)
	if err != nil {
		return nil, err
	}
	if notice != "" {
		fmt.Fprintln(warn, notice)
	}
	log := slog.New(slog.NewTextHandler(printable{warn}, nil))
	return guard.Model(p.task, setup(ctx, job.Job{Spec: spec, Backend: backend}, evaluateOnly, log))
}

// setup says what a model is built for.
func setup(ctx context.Context, j job.Job, evaluateOnly bool, log *slog.Logger) evenweave.Setup {
	return evenweave.Setup{
		Context: ctx, Backend: j.Backend, MicroBatch: j.Spec.MicroBatch, Samples: j.Spec.Samples, Seed: j.Spec.Seed,
		TotalSteps:   j.Spec.TotalSteps(),
		EvaluateOnly: evaluateOnly, Log: log,
	}
}

// openJob loads what a worker needs for a job: model and data at the same time, because each may take a while.
func (p *program) openJob(dir string, log *slog.Logger) func(context.Context, job.Job) (worker.Opened, error) {
	return func(ctx context.Context, j job.Job) (o worker.Opened, err error) {
		defer guard.Recover(&err) // this is no goroutine of a command's, and the probe computes
		if err := p.adopt(j.Spec); err != nil {
			return o, err
		}
		type loaded struct {
			sets evenweave.Sets
			err  error
		}
		loading := make(chan loaded, 1)
		go func() {
			sets, err := guard.Data(p.task, dir)
			loading <- loaded{sets, err}
		}()
		model, err := guard.Model(p.task, setup(ctx, j, false, log))
		data := <-loading
		if err != nil {
			return o, err
		}
		if data.err != nil {
			return o, data.err
		}
		train := data.sets.Train
		if train.Digest() != j.Spec.Data || train.Len() != j.Spec.Samples {
			return o, fmt.Errorf("this worker's training data has hash %s (%d samples), the job's is %s "+
				"(%d samples): give it the same files with --data",
				job.Clean(train.Digest()), train.Len(), j.Spec.Data, j.Spec.Samples)
		}
		// extending a job changes no numerics
		numerics, err := probe.Numerics(model, train, j.Spec.Plan(), j.Spec.Original().TotalSteps())
		tidy(model.Tensors())
		return worker.Opened{Model: model, Data: train, Numerics: numerics}, err
	}
}

// tidy gives back what loading and the probe have used, and keeps little garbage of a large state: few objects of many
// bytes, which the collector finds at once, but by default not before there are as many bytes again.
func tidy(state []evenweave.Tensor) {
	const most = 64 << 20 // bytes of garbage, about
	size := int64(most)
	for _, t := range state {
		size += t.Bytes()
	}
	if percent := 100 * most / size; percent < 50 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(max(10, int(percent)))
	}
	debug.FreeOSMemory()
}
