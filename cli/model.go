package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"evenweave"

	"evenweave/checkpoint"
	"evenweave/coordinator"
	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/schedule"
	"evenweave/worker"
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

// samples feeds a worker from the data set, as the recipe augments it.
type samples struct {
	data   *fashionmnist.Dataset
	recipe cnn.Recipe
	seed   uint64
}

// Load implements worker.Dataset.
func (s samples) Load(b *schedule.Batch) error {
	b.Inputs, b.Labels, b.Weights = b.Inputs[:0], b.Labels[:0], b.Weights[:0]
	var blank [fashionmnist.Pixels]byte
	for _, i := range b.Samples {
		if i == evenweave.Padding {
			b.Inputs, b.Labels, b.Weights = append(b.Inputs, blank[:]...), append(b.Labels, 0), append(b.Weights, 0)
			continue
		}
		if int(i) >= s.data.Len() {
			return fmt.Errorf("sample %d: the data set has %d", i, s.data.Len())
		}
		b.Inputs, b.Labels, b.Weights = append(b.Inputs, s.data.Image(int(i))...), append(b.Labels, s.data.Labels[i]), append(b.Weights, 1)
	}
	s.recipe.Augment(b, s.seed)
	return nil
}

// trainee is the CNN as a worker sees it.
type trainee struct {
	*cnn.Model
	tensors []cnn.Tensor
}

// ParameterName implements worker.Model.
func (t trainee) ParameterName(i int) string {
	for _, tensor := range t.tensors {
		if i < tensor.Offset+tensor.Size() {
			return fmt.Sprintf("%s[%d]", tensor.Name, i-tensor.Offset)
		}
	}
	return fmt.Sprintf("element %d", i)
}

func options(j job.Job) cnn.Options {
	return cnn.Options{
		Backend: j.Backend, Recipe: j.Spec.Recipe, MicroBatch: j.Spec.MicroBatch, Freeze: j.Spec.Freeze,
		TotalSteps: j.Spec.TotalSteps(),
	}
}

// openWorker loads what a worker needs for a job: model and data at the same time, because each takes about a second.
func openWorker(data string, log *slog.Logger) func(context.Context, job.Job) (worker.Model, worker.Dataset, string, error) {
	return func(_ context.Context, j job.Job) (worker.Model, worker.Dataset, string, error) {
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
		if notice := model.Notice(); notice != "" {
			log.Warn(notice)
		}
		recipe, err := cnn.RecipeNamed(j.Spec.Recipe)
		if err != nil {
			return nil, nil, "", err
		}
		numerics, err := model.Numerics()
		return trainee{model, model.Layout()}, samples{d.train, recipe, j.Spec.Seed}, numerics, err
	}
}

// judge is the CNN as the coordinator sees it.
type judge struct {
	job        job.Job
	test, held *fashionmnist.Dataset // held: what --holdout keeps out of training, or nil
	weights    []float32             // to start from; nil: the seed's
}

// Initial implements coordinator.Model.
func (j judge) Initial(seed uint64) ([]float32, error) {
	values := new(cnn.Model).Init(seed)
	copy(values, j.weights) // the moments start from nothing
	return values, nil
}

// WeightsSHA256 implements coordinator.Model.
func (j judge) WeightsSHA256(values []float32) string { return cnn.WeightsSHA256(values) }

// Tensors implements coordinator.Model.
func (j judge) Tensors() []checkpoint.Tensor {
	var out []checkpoint.Tensor
	for _, t := range new(cnn.Model).Layout() {
		out = append(out, checkpoint.Tensor{Name: t.Name, Shape: t.Shape, Offset: t.Offset})
	}
	return out
}

// Layers implements coordinator.Model.
func (j judge) Layers() []progress.Layer {
	recipe, err := cnn.RecipeNamed(j.job.Spec.Recipe)
	if err != nil {
		return nil // the spec's check has refused it
	}
	var out []progress.Layer
	for _, l := range cnn.Layers(recipe) {
		out = append(out, progress.Layer{Name: l.Name, Output: l.Output, Parameters: l.Parameters})
	}
	return out
}

// Evaluator implements coordinator.Model.
func (j judge) Evaluator() (coordinator.Evaluator, error) {
	o := options(j.job)
	o.EvaluateOnly = true
	model, err := cnn.Open(o)
	if err != nil {
		return nil, err
	}
	return examiner{j, model}, nil
}

type examiner struct {
	judge
	model *cnn.Model
}

// Evaluate implements coordinator.Evaluator on exactly the test images.
func (e examiner) Evaluate(ctx context.Context, values []float32) (test coordinator.Score, held *coordinator.Score, err error) {
	score := func(on *fashionmnist.Dataset) coordinator.Score {
		r, failed := examine(ctx, e.model, values, on)
		err = errors.Join(err, failed)
		return coordinator.Score{Accuracy: r.Accuracy, Loss: r.Loss}
	}
	test = score(e.test)
	if e.held != nil {
		s := score(e.held)
		held = &s
	}
	return test, held, err
}

func examine(ctx context.Context, model *cnn.Model, values []float32, on *fashionmnist.Dataset) (evaluate.Result, error) {
	logits := func(images []byte, _ int, dst []float32) error { return model.Logits(values, images, dst) }
	return evaluate.Evaluate(ctx, logits, on.Images, fashionmnist.Pixels, on.Labels, fashionmnist.Classes())
}
