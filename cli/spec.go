package cli

import (
	"fmt"

	"github.com/spf13/pflag"

	"evenweave/fashion/cnn"
	"evenweave/fashion/fashionmnist"
	"evenweave/internal/job"
)

// specFlags are the flags that say what is trained, shared by train and coordinator.
type specFlags struct {
	spec            job.Spec
	backend         string
	data            string
	samples         int    // the first so many; 0: all
	initFrom        string // checkpoint
	checkpointEvery int64
	keep            int
	evaluate        bool
}

func (s *specFlags) register(f *pflag.FlagSet) {
	f.StringVar(&s.spec.Model, "model", "cnn", "what is trained")
	f.StringVar(&s.spec.Recipe, "recipe", "tutorial", "how: tutorial, fast or augment")
	f.IntVar(&s.spec.Epochs, "epochs", 10, "passes over the data")
	f.Int64Var(&s.spec.Steps, "steps", 0, "optimizer updates; 0: as many as the epochs have")
	f.Uint64Var(&s.spec.Seed, "seed", 1, "decides every random number: order, weights, dropout")
	f.IntVar(&s.spec.GlobalBatch, "global-batch", 128, "samples of one step, whatever the number of workers")
	f.IntVar(&s.spec.MicroBatch, "micro-batch", 16, "samples of one unit of work; must divide the global batch")
	f.IntVar(&s.spec.Holdout, "holdout", 0, "training samples to keep out of training: the epoch that does best on them (the first 10,000) is kept as checkpoints/best")
	f.StringVar(&s.spec.Classes, "classes", "", "train and evaluate on these labels only, for example 0-4,7 (default: all)")
	f.IntVar(&s.samples, "samples", 0, "train on the first so many samples only; 0: all")
	f.StringVar(&s.initFrom, "init-from", "", "checkpoint whose weights to start from, instead of the seed's (transfer learning)")
	f.StringVar(&s.spec.Freeze, "freeze", "", "tensors that keep their first values, for example conv*/* or conv1/*,conv2/kernel")
	f.StringVar(&s.backend, "backend", "auto", "auto, xla, xla:cuda or go")
	f.StringVar(&s.data, "data", "", "directory of the Fashion-MNIST files (default: where make setup put them)")
	f.Int64Var(&s.checkpointEvery, "checkpoint-every", 0, "steps between checkpoints, beside each epoch's end; 0: none")
	f.IntVar(&s.keep, "keep", 3, "checkpoints to keep")
	f.BoolVar(&s.evaluate, "evaluate", true, "evaluate on the test set at each epoch's end")
}

// settings gives the flags to a child process.
func (s *specFlags) settings() map[string]string {
	return map[string]string{
		"model": s.spec.Model, "recipe": s.spec.Recipe, "epochs": fmt.Sprint(s.spec.Epochs), "steps": fmt.Sprint(s.spec.Steps),
		"seed": fmt.Sprint(s.spec.Seed), "global-batch": fmt.Sprint(s.spec.GlobalBatch), "micro-batch": fmt.Sprint(s.spec.MicroBatch),
		"holdout": fmt.Sprint(s.spec.Holdout), "classes": s.spec.Classes, "samples": fmt.Sprint(s.samples),
		"init-from": s.initFrom, "freeze": s.spec.Freeze, "backend": s.backend, "data": s.data,
		"checkpoint-every": fmt.Sprint(s.checkpointEvery), "keep": fmt.Sprint(s.keep), "evaluate": fmt.Sprint(s.evaluate),
	}
}

// check finds bad usage before anything is started.
func (s *specFlags) check() error {
	classes, err := fashionmnist.ParseClasses(s.spec.Classes)
	if err != nil {
		return usagef("--%w", err)
	}
	if s.samples < 0 || s.spec.Holdout < 0 {
		return usagef("--samples %d --holdout %d: must be 0 or more", s.samples, s.spec.Holdout)
	}
	if err := s.limit(fashionmnist.TrainSize / fashionmnist.NumClasses * len(classes)); err != nil {
		return usageError{err}
	}
	spec := s.spec
	if err := spec.Validate(); err != nil {
		return usageError{err}
	}
	if _, err := cnn.Frozen(spec.Freeze); err != nil {
		return usagef("--%w", err)
	}
	switch {
	case spec.Model != modelName:
		return usagef("--model %q: there is only %q", spec.Model, modelName)
	case s.checkpointEvery < 0:
		return usagef("--checkpoint-every %d: must be 0 or more", s.checkpointEvery)
	case s.keep < 1:
		return usagef("--keep %d: must be at least 1", s.keep)
	}
	return checkModel(spec, s.backend)
}

// limit sets the number of training samples, of so many that the classes have.
func (s *specFlags) limit(have int) error {
	left := have - s.spec.Holdout
	if s.spec.Samples = s.samples; s.samples == 0 {
		s.spec.Samples = left
	} else if s.samples > left {
		return fmt.Errorf("--samples %d: there are %d, %d of them held out: choose at most %d", s.samples, have, s.spec.Holdout, left)
	}
	return nil
}
