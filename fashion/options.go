package fashion

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/fashion/fashionmnist"
)

// options are the flags of the task and its part of a job's spec.
type options struct {
	Recipe  string `flag:"recipe" help:"how: tutorial, fast or augment"`
	Classes string `flag:"classes" help:"train and evaluate on these labels only, such as 0-4,7 (default: all)"`
	Samples int    `flag:"samples" help:"train on the first so many samples only; 0: all"`
	Holdout int    `flag:"holdout" help:"samples kept out of training, by which checkpoints/best is chosen"`
	Freeze  string `flag:"freeze" help:"tensors that keep their first values, such as conv1/*,conv2/kernel"`

	InitFrom string `flag:"init-from" spec:"-,create" help:"checkpoint to take the first weights from"`
	Init     string `spec:"init"` // SHA-256 of those weights; "": the seed's

	Outputs int `spec:"outputs"` // classes of a data set that is not Fashion-MNIST; 0: it is

	weights map[string][]byte // of InitFrom, by tensor; nil: the seed's
}

// Validate implements evenweave.Validator. How many samples and classes there are, only the data can say.
func (o *options) Validate() error {
	if _, err := cnn.RecipeNamed(o.Recipe); err != nil {
		return err
	}
	if _, err := fashionmnist.ParseClasses(o.Classes, cnn.MaxClasses); err != nil {
		return fmt.Errorf("--%w", err)
	}
	if o.Samples < 0 || o.Holdout < 0 {
		return fmt.Errorf("--samples %d --holdout %d: must be 0 or more", o.Samples, o.Holdout)
	}
	if _, err := cnn.Frozen(o.Freeze, 0); err != nil {
		return fmt.Errorf("--%w", err)
	}
	return nil
}

// Prepare implements evenweave.Preparer: it reads the weights of --init-from, a checkpoint file or a run directory, and
// puts their hash into the spec.
func (o *options) Prepare(ctx context.Context) (notes []string, err error) {
	o.Init, o.weights = "", nil
	if o.InitFrom != "" {
		path, err := checkpoint.Find(ctx, o.InitFrom, func(e *checkpoint.DamagedError) {
			notes = append(notes, "skipped: "+e.Error())
		})
		if err != nil {
			return nil, fmt.Errorf("--init-from: %w", err)
		}
		from, err := checkpoint.Load(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("--init-from: %w", err)
		}
		if o.weights, err = weightsOf(from); err != nil {
			return nil, fmt.Errorf("--init-from %s: %w; choose a checkpoint of this task", path, err)
		}
		o.Init = from.WeightsSHA256
		notes = append(notes, fmt.Sprintf("starting from the weights of %s (step %d, %s)",
			path, from.Manifest.Step, from.WeightsSHA256))
	}
	frozen, err := cnn.Frozen(o.Freeze, 0)
	if err != nil {
		return nil, err
	}
	if len(frozen) > 0 {
		var names []string
		for _, t := range frozen {
			names = append(names, t.Name)
		}
		notes = append(notes, "frozen: "+strings.Join(names, ", "))
	}
	return notes, nil
}

// weightsOf takes a network's parameters from a checkpoint, of which only they are needed. The network has as many
// classes as the checkpoint's.
func weightsOf(from *checkpoint.Checkpoint) (map[string][]byte, error) {
	weights, classes := map[string][]byte{}, 0
	if bias, err := from.Bytes(lastBias); err == nil {
		classes = len(bias) / evenweave.Float32.Size()
	}
	for _, t := range cnn.Tensors(classes) {
		if t.Role != evenweave.Trained {
			continue
		}
		b, err := from.Bytes(t.Name)
		if err != nil {
			return nil, err
		}
		if int64(len(b)) != t.Bytes() {
			return nil, fmt.Errorf("tensor %q has %d bytes, the network's has %d", t.Name, len(b), t.Bytes())
		}
		weights[t.Name] = b
	}
	return weights, nil
}

// lastBias has an element for each class.
const lastBias = "dense/bias"

// fits says whether the weights to start from are of a network for the data's classes.
func (o *options) fits() error {
	if o.weights == nil {
		return nil
	}
	have, want := len(o.weights[lastBias])/evenweave.Float32.Size(), o.outputs()
	if have != want {
		return fmt.Errorf("--init-from: its network is for %d classes, the data have %d", have, want)
	}
	return nil
}

// outputs is the number of classes.
func (o *options) outputs() int { return cmp.Or(o.Outputs, fashionmnist.NumClasses) }

// names are those of the classes.
func (o *options) names() []string {
	if o.Outputs == 0 {
		return fashionmnist.Classes()
	}
	names := make([]string, o.Outputs)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	return names
}
