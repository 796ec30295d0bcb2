package evenweave

import (
	"context"
	"log/slog"
)

// Task is all that the trainer does not know: what a program trains. It is set up once, in main, and only read
// afterwards.
type Task struct {
	// Name is recorded with each job: another task's checkpoints are refused. Lower-case letters, digits and hyphens,
	// at most 40.
	Name string
	// About is one sentence for --help.
	About string
	// Options points to a struct whose fields are the task's own flags, EVENWEAVE_* variables and part of the spec; see
	// the type Validator for how its tags are written. nil: the task has no options. The struct holds the values when
	// Data or Model are called.
	Options any
	// Data opens the data below a directory, "" if the user named none. It is called once in each process that loads
	// samples.
	Data func(dir string) (Sets, error)
	// Model builds the model. It is called once in each process that trains or evaluates, never by two goroutines at
	// once.
	Model func(Setup) (Model, error)
	// Backends are what the model can compute on; gomlx.Backends gives GoMLX's. Zero: there is no choice.
	Backends Backends
	// Metrics names the sums that Gradients reports beside the loss: their mean over a step's weight is shown with each
	// step. At most 64 names of at most 40 printable characters; in JSON a step has a field of each name, so that the
	// names of its other fields ("loss", "step", ...) are refused.
	Metrics []string
	// Defaults are values of the trainer's own flags in place of its defaults: epochs, steps, seed, global-batch,
	// micro-batch, checkpoint-every, keep, evaluate and on-nonfinite, without dashes.
	Defaults map[string]string
	// Short are values of options, by flag, with which an epoch is short: the defaults of `chaos`, for which each end
	// of an epoch is a moment to test.
	Short map[string]string
	// Commands are the program's own, beside train, worker, coordinator and the others. One of the same name replaces
	// the tool's.
	Commands []Command
}

// Backends are what a model can compute on.
type Backends struct {
	// Names are what --backend takes, the default first. None: the model has one backend, and there is no such flag.
	Names []string
	// Resolve says what a name means on this machine: "auto" and its like become the name of a backend that is there,
	// which the job then pins. notice explains the choice to a person.
	Resolve func(name string) (resolved, notice string, err error)
	// Versions says what computes, beside this module, for `version`: libraries, plug-ins. May be nil.
	Versions func() []Version
}

// Version is one of what a task computes with.
type Version struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// Sets are the data of a task.
type Sets struct {
	Train Data
	Test  Data // nil: there is nothing to evaluate on
	// HeldOut are samples kept out of training; the epoch that does best on them is kept as the checkpoint "best". nil:
	// none.
	HeldOut Data
}

// Setup is what a model is built for.
type Setup struct {
	// Context ends when the process is asked to go: a long compilation may give up then.
	Context context.Context
	// Backend is the resolved name, "" for a task without a choice of backends.
	Backend string
	// MicroBatch is the number of samples of each batch that Gradients gets.
	MicroBatch int
	// Samples is the number of samples that are trained on, 0 where it is not known. It says how many samples the last
	// micro-batch of an epoch has: the others of its batch are padding.
	Samples int
	// Seed of the job.
	Seed uint64
	// TotalSteps is the length of the schedule in updates, for learning rates that depend on it. A model that reads it
	// should say so in Describer.Schedule, so that the job cannot be extended.
	TotalSteps int64
	// EvaluateOnly promises that neither Gradients nor Update is called.
	EvaluateOnly bool
	// Log is for what people running this process should know; never nil.
	Log *slog.Logger
}
