// Package fashion is the built-in task: a small convolutional network on Fashion-MNIST. It is a user of package
// evenweave like any other: it knows nothing of workers, coordinators or the command line.
//
//	task.go      the task, and its model
//	options.go   what its user may choose
//	data.go      the samples
//	details.go   what an evaluation shows
//	commands.go  evaluate with tables, predict
//	cnn/         the network, in GoMLX
//	evaluate/    accuracy, tables, pictures
//	fashionmnist/ the data's files
package fashion

import (
	"context"
	"fmt"

	"evenweave"
	"evenweave/evaluation"
	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
	"evenweave/gomlx/backend"
)

// Task returns the task, with the options' defaults.
func Task() *evenweave.Task {
	o := &options{Recipe: "tutorial"}
	return &evenweave.Task{
		Name:     "fashion",
		About:    "A small convolutional network on Fashion-MNIST",
		Options:  o,
		Data:     o.data,
		Model:    o.model,
		Backends: backend.Choice(),
		Metrics:  cnn.Metrics(),
		Short:    map[string]string{"holdout": "57600"},
		Commands: o.commands(),
	}
}

// model builds the network for a job or a checkpoint.
func (o *options) model(s evenweave.Setup) (evenweave.Model, error) {
	m, err := cnn.Open(cnn.Options{
		Backend: s.Backend, Recipe: o.Recipe, MicroBatch: s.MicroBatch, TotalSteps: s.TotalSteps, Freeze: o.Freeze,
		EvaluateOnly: s.EvaluateOnly, Classes: o.outputs(),
	})
	if err != nil {
		return nil, err
	}
	return &network{m, o.names(), o.weights}, nil
}

// network is the CNN with the names of its classes and the weights to start from.
type network struct {
	*cnn.Model
	classes []string
	weights map[string][]byte // nil: the seed's
}

// Init implements evenweave.Model: of a checkpoint to start from the weights are taken, not the moments.
func (n *network) Init(seed uint64) error {
	if err := n.Model.Init(seed); err != nil {
		return err
	}
	for i, t := range n.Tensors() {
		if w, ok := n.weights[t.Name]; ok {
			if err := n.Write(i, 0, w); err != nil {
				return err
			}
		}
	}
	return nil
}

// Evaluate implements evenweave.Evaluator.
func (n *network) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	r, err := n.measure(ctx, data)
	return figures(r), err
}

// EvaluateDetails implements evenweave.DetailedEvaluator.
func (n *network) EvaluateDetails(ctx context.Context, data evenweave.Data) (found []evenweave.Figure,
	shown evenweave.Details, err error) {
	c, err := contentOf(data)
	if err != nil {
		return nil, evenweave.Details{}, err
	}
	r, err := n.compare(ctx, c)
	if err != nil {
		return nil, evenweave.Details{}, err
	}
	shown, err = details(r, c.Images)
	return figures(r), shown, err
}

// measure compares the present state's answers with all labels.
func (n *network) measure(ctx context.Context, data evenweave.Data) (evaluation.Result, error) {
	c, err := contentOf(data)
	if err != nil {
		return evaluation.Result{}, err
	}
	return n.compare(ctx, c)
}

func (n *network) compare(ctx context.Context, c *cnn.Content) (evaluation.Result, error) {
	logits := func(images []byte, _ int, dst []float32) error { return n.Logits(images, dst) }
	return evaluate.Evaluate(ctx, logits, c.Images, fashionmnist.Pixels, c.Labels, n.classes)
}

// contentOf loads all samples.
func contentOf(data evenweave.Data) (*cnn.Content, error) {
	b := evenweave.Batch{Samples: make([]int32, data.Len())}
	for i := range b.Samples {
		b.Samples[i] = int32(i)
	}
	if err := data.Load(&b); err != nil {
		return nil, err
	}
	c, ok := b.Content.(*cnn.Content)
	if !ok {
		return nil, fmt.Errorf("data of %T: the network takes *cnn.Content", b.Content)
	}
	return c, nil
}
