package cli

import (
	"context"
	"fmt"
	"log/slog"

	"evenweave"

	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
	"evenweave/internal/job"
	"evenweave/internal/probe"
)

const modelName = "cnn"

func checkModel(spec job.Spec, backend string) error {
	if _, err := cnn.RecipeNamed(spec.Recipe); err != nil {
		return usageError{err}
	}
	switch backend {
	case "auto", "xla", "xla:cuda", "go":
		return nil
	}
	return usagef("--backend %q: must be auto, xla, xla:cuda or go", backend)
}

// loadData reads the data set, of it the classes that the spec names.
func loadData(dir, classes string) (train, test *fashionmnist.Dataset, err error) {
	if dir, err = fashionmnist.Find(dir); err != nil {
		return nil, nil, err
	}
	only, err := fashionmnist.ParseClasses(classes)
	if err != nil {
		return nil, nil, err
	}
	if train, test, err = fashionmnist.Load(dir); err != nil {
		return nil, nil, err
	}
	return train.Only(only), test.Only(only), nil
}

// heldOut returns the last n training samples, which no worker loads; of more than the test set has, the first. nil for n = 0.
func heldOut(train *fashionmnist.Dataset, n int) (*fashionmnist.Dataset, error) {
	if n == 0 {
		return nil, nil
	}
	_, held, err := train.Split(n)
	if err == nil {
		held, _, err = held.Split(max(0, n-fashionmnist.TestSize))
	}
	return held, err
}

// samples is a data set as the model takes it, augmented as a recipe says.
type samples struct {
	*fashionmnist.Dataset
	recipe cnn.Recipe
}

// Digest implements evenweave.Data.
func (s samples) Digest() string { return s.Hash }

// Load implements evenweave.Data.
func (s samples) Load(b *evenweave.Batch) error {
	c, ok := b.Content.(*cnn.Content)
	if !ok {
		c = &cnn.Content{}
		b.Content = c
	}
	c.Reset()
	for _, i := range b.Samples {
		switch {
		case i == evenweave.Padding:
			c.Pad()
		case int(i) >= s.Len():
			return fmt.Errorf("sample %d: the data set has %d", i, s.Len())
		default:
			c.Add(s.Image(int(i)), s.Labels[i])
		}
	}
	s.recipe.Augment(b, c)
	return nil
}

func options(j job.Job) cnn.Options {
	return cnn.Options{
		Backend: j.Backend, Recipe: j.Spec.Recipe, MicroBatch: j.Spec.MicroBatch, Freeze: j.Spec.Freeze,
		TotalSteps: j.Spec.TotalSteps(),
	}
}

// openWorker loads what a worker needs for a job: model and data at the same time, because each takes about a second.
func openWorker(data string, log *slog.Logger) func(context.Context, job.Job) (evenweave.Model, evenweave.Data, string, error) {
	return func(_ context.Context, j job.Job) (evenweave.Model, evenweave.Data, string, error) {
		type loaded struct {
			train *fashionmnist.Dataset
			err   error
		}
		loading := make(chan loaded, 1)
		go func() {
			train, _, err := loadData(data, j.Spec.Classes)
			loading <- loaded{train, err}
		}()
		model, err := cnn.Open(options(j))
		d := <-loading
		if err != nil {
			return nil, nil, "", err
		}
		if d.err != nil {
			return nil, nil, "", d.err
		}
		if d.train.Hash != j.Spec.Data {
			return nil, nil, "", fmt.Errorf("this worker's training data has hash %s, the job's is %s: give it the same files with --data", d.train.Hash, j.Spec.Data)
		}
		if _, notice, _ := model.Backend(); notice != "" {
			log.Warn(notice)
		}
		recipe, err := cnn.RecipeNamed(j.Spec.Recipe)
		if err != nil {
			return nil, nil, "", err
		}
		train := samples{d.train, recipe}
		numerics, err := probe.Numerics(model, train, j.Spec.Plan(), j.Spec.TotalSteps())
		return model, train, numerics, err
	}
}

// evaluating is the CNN as the coordinator uses it.
type evaluating struct {
	*cnn.Model
	weights [][]byte // of the trained tensors, to start from; nil: the seed's
}

// openEvaluating opens the model of a job for evaluation only.
func openEvaluating(j job.Job) (*evaluating, error) {
	o := options(j)
	o.EvaluateOnly = true
	model, err := cnn.Open(o)
	return &evaluating{Model: model}, err
}

// Init implements evenweave.Model: of a checkpoint to start from the weights are taken, not the moments.
func (e *evaluating) Init(seed uint64) error {
	if err := e.Model.Init(seed); err != nil {
		return err
	}
	for i, w := range e.weights {
		if err := e.Write(i, 0, w); err != nil {
			return err
		}
	}
	return nil
}

// Evaluate implements evenweave.Evaluator.
func (e *evaluating) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	r, err := examine(ctx, e.Model, data)
	return []evenweave.Figure{
		{Name: "accuracy", Value: r.Accuracy, Better: evenweave.Higher},
		{Name: "loss", Value: r.Loss, Better: evenweave.Lower},
	}, err
}

// examine measures the live state on all samples.
func examine(ctx context.Context, model *cnn.Model, data evenweave.Data) (evaluate.Result, error) {
	b := evenweave.Batch{Samples: make([]int32, data.Len())}
	for i := range b.Samples {
		b.Samples[i] = int32(i)
	}
	if err := data.Load(&b); err != nil {
		return evaluate.Result{}, err
	}
	c, ok := b.Content.(*cnn.Content)
	if !ok {
		return evaluate.Result{}, fmt.Errorf("data of %T: the CNN takes *cnn.Content", b.Content)
	}
	logits := func(images []byte, _ int, dst []float32) error { return model.Logits(images, dst) }
	return evaluate.Evaluate(ctx, logits, c.Images, fashionmnist.Pixels, c.Labels, fashionmnist.Classes())
}
