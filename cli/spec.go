package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/job"
)

// specFlags are the flags that say what is trained, shared by all commands that train.
type specFlags struct {
	program         *program
	flags           *pflag.FlagSet
	spec            job.Spec
	backend         string
	data            string
	checkpointEvery int64
	keep            int
	onNonfinite     string
	evaluate        bool
	extend          bool
}

func (s *specFlags) register(p *program, f *pflag.FlagSet) {
	s.program, s.flags = p, f
	s.trainerFlags(f)
	p.backendFlag(f, &s.backend)
	dataFlag(f, &s.data)
	p.defaults(f)
	p.optionFlags(f, everyOption)
}

// trainerFlags are those whose defaults a task may set.
func (s *specFlags) trainerFlags(f *pflag.FlagSet) {
	f.IntVar(&s.spec.Epochs, "epochs", 10, "passes over the data")
	f.Int64Var(&s.spec.Steps, "steps", 0, "optimizer updates; 0: as many as the epochs have")
	batchFlags(f, &s.spec)
	f.Int64Var(&s.checkpointEvery, "checkpoint-every", 0, "steps between checkpoints, beside each epoch's end; 0: none")
	f.StringVar(&s.onNonfinite, "on-nonfinite", stopAtNonfinite, "what a step whose gradient or loss is not finite "+
		"does: stop ends the job, skip leaves the weights as they are and goes on")
	f.IntVar(&s.keep, "keep", 3, "checkpoints to keep")
	f.BoolVar(&s.evaluate, "evaluate", true, "evaluate on the test set at each epoch's end")
}

// defaults gives flags that a command has the defaults of the task.
func (p *program) defaults(f *pflag.FlagSet) {
	for name, value := range p.task.Defaults {
		if flag := f.Lookup(name); flag != nil {
			_ = flag.Value.Set(value) // newProgram has tried it
			flag.DefValue = value
		}
	}
}

// extendFlag adds --extend, for commands that can resume a job.
func (s *specFlags) extendFlag(f *pflag.FlagSet) {
	f.BoolVar(&s.extend, "extend", false, "go on with a job that was shorter: the steps or epochs asked for now "+
		"become its length")
}

// settings gives the flags to a child process.
func (s *specFlags) settings() map[string]string {
	settings := s.program.optionSettings(everyOption)
	for name, value := range map[string]any{
		"epochs": s.spec.Epochs, "steps": s.spec.Steps, "seed": s.spec.Seed, "global-batch": s.spec.GlobalBatch,
		"micro-batch": s.spec.MicroBatch,
		"data":        s.data, "checkpoint-every": s.checkpointEvery, "keep": s.keep, "evaluate": s.evaluate,
		"on-nonfinite": s.onNonfinite,
	} {
		settings[name] = fmt.Sprint(value)
	}
	if s.program.task.Backends.Resolve != nil {
		settings["backend"] = s.backend
	}
	return settings
}

// stopAtNonfinite is the default of --on-nonfinite.
const stopAtNonfinite = "stop"

// check finds bad usage before anything is started.
func (s *specFlags) check() error {
	switch {
	case s.checkpointEvery < 0:
		return usagef("--checkpoint-every %d: must be 0 or more", s.checkpointEvery)
	case s.keep < 1:
		return usagef("--keep %d: must be at least 1", s.keep)
	}
	if s.flags != nil && s.flags.Changed("epochs") && !s.flags.Changed("steps") {
		s.spec.Steps = 0 // --epochs replaces a task's default number of steps
	}
	s.spec.OnNonfinite = s.onNonfinite
	if s.onNonfinite == stopAtNonfinite { // the default is left out, as in specs of earlier builds
		s.spec.OnNonfinite = ""
	}
	if err := s.spec.ValidateFlags(); err != nil {
		return usageError{err}
	}
	return s.program.validate()
}

// batchFlags are those that decide what a step computes, for commands that only try steps.
func batchFlags(f *pflag.FlagSet, spec *job.Spec) {
	f.Uint64Var(&spec.Seed, "seed", 1, "decides every random number: order, weights, dropout")
	f.IntVar(&spec.GlobalBatch, "global-batch", 128, "samples of one step, whatever the number of workers")
	f.IntVar(&spec.MicroBatch, "micro-batch", 16, "samples of one unit of work; must divide the global batch")
}

// open prepares the options, opens the data and completes the spec; notes are for people.
func (s *specFlags) open(ctx context.Context) (sets evenweave.Sets, notes []string, err error) {
	if notes, err = s.prepare(ctx); err != nil {
		return sets, nil, err
	}
	if sets, err = guard.Data(s.program.task, s.data); err != nil {
		return sets, nil, err
	}
	return sets, notes, s.complete(sets.Train)
}

// prepare completes the options in the process that creates or resumes a job; notes are for people.
func (s *specFlags) prepare(ctx context.Context) (notes []string, err error) {
	if preparer, ok := s.program.task.Options.(evenweave.Preparer); ok {
		return preparer.Prepare(ctx)
	}
	return nil, nil
}

// complete puts into the spec what the options, once prepared, and the training data say.
func (s *specFlags) complete(train evenweave.Data) error {
	s.spec.Task, s.spec.Options = s.program.task.Name, s.program.options.Spec()
	s.spec.Data, s.spec.Samples = train.Digest(), train.Len()
	if err := s.spec.Validate(); err != nil {
		return usageError{err}
	}
	return nil
}

// backendFlag adds --backend if the task has a choice.
func (p *program) backendFlag(f *pflag.FlagSet, to *string) {
	if names := p.task.Backends.Names; len(names) > 0 {
		chosen(f, to, "backend", names[0], strings.Join(names, ", "), names...)
	}
}

// resolveBackend is the backend that this machine has for a name; notice explains it to a person.
func (p *program) resolveBackend(name string) (resolved, notice string, err error) {
	if p.task.Backends.Resolve == nil {
		return "", "", nil
	}
	return p.task.Backends.Resolve(name)
}

func dataFlag(f *pflag.FlagSet, to *string) {
	f.StringVar(to, "data", "", "directory of the data (default: where the task looks for it)")
}
