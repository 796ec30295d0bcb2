package gomlx

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"
)

// Config is a model as GoMLX's train.NewTrainer takes it. Model and Inputs must be set.
type Config struct {
	// Model builds the predictions: a function of any signature that train.ModelFnCompatible allows.
	Model any
	// Loss compares labels and predictions; its mean is what training reduces. nil: the model adds its own losses
	// (train.AddMainLoss).
	Loss loss.LossFn
	// Optimizer updates the weights. nil: the one that Params name, as optimizer.FromStore does ("adamw" by default).
	Optimizer optimizer.Interface
	// Params are the hyperparameters that the model's functions ask their scope for, by name or path: see type
	// Params.
	Params map[string]any
	// Spec is passed to a Model that takes one.
	Spec any
	// Inputs and Labels are the shapes of one sample, without the axis of the batch, in the order of the data's
	// tensors.
	Inputs, Labels []shapes.Shape

	// Weight returns the weight of a micro-batch, a scalar: the number of tokens that count, for a Loss that is the
	// mean over those. nil: the number of samples.
	Weight func(labels []*graph.Node) *graph.Node
	// Fractions says that weights are no whole numbers: they are rounded to multiples of 1/256.
	Fractions bool
	// ClipNorm is the largest norm of the mean gradient of all weights together; a longer one is shortened to it. 0:
	// any.
	ClipNorm float64

	// Tuning says what the model starts from, and what is not trained.
	Tuning Tuning

	// Counts are what Task.Metrics names, in that order.
	Counts []Count
	// Metrics are shown after each evaluation, before the loss.
	Metrics []metric.Interface
	// Classes are the names of the first label's classes, for what an evaluation shows. nil: those of the data
	// (evenweave.Classed), or numbers.
	Classes []string
	// Schedule says why the job's length changes the result, where Params were made from Setup.TotalSteps: such a job
	// cannot be extended. A schedule that asks GoMLX for the last step is found without it.
	Schedule string
}

// Count returns, for one micro-batch, how often something was the case: a scalar, a whole number. Its mean over a
// step's weight is shown with the step: where Config.Weight gives samples other weights than 1, it counts with them.
type Count func(labels, predictions []*graph.Node) *graph.Node

// Correct is the Count of predictions whose largest value is at the label, an index: Task.Metrics calls it "accuracy".
func Correct(labels, predictions []*graph.Node) *graph.Node {
	return graph.ReduceAllSum(hits(labels, predictions))
}

// CorrectBy is Correct for samples that have weights: the label at an index, which Config.Weight adds up.
func CorrectBy(weights int) Count {
	return func(labels, predictions []*graph.Node) *graph.Node {
		r := hits(labels, predictions)
		w := graph.ConvertDType(graph.Reshape(labels[weights], r.Shape().Dimensions...), dtypes.Float32)
		return graph.ReduceAllSum(graph.Mul(r, w))
	}
}

// hits are 1 where a prediction's largest value is at the label, else 0.
func hits(labels, predictions []*graph.Node) *graph.Node {
	best := graph.ArgMax(predictions[0], -1, labels[0].DType())
	return graph.ConvertDType(graph.Equal(best, graph.Reshape(labels[0], best.Shape().Dimensions...)), dtypes.Float32)
}

// signature checks Model and gives it GoMLX's canonical form, as train.NewTrainer does by a private function.
func (c *Config) signature() (train.ModelFn, error) {
	if f, ok := c.Model.(train.ModelFn); ok {
		return f, nil
	}
	if c.Model == nil || reflect.TypeOf(c.Model).Kind() != reflect.Func {
		return nil, fmt.Errorf("Config.Model is a %T: expected a model function of GoMLX", c.Model)
	}
	call, t := reflect.ValueOf(c.Model), reflect.TypeOf(c.Model)
	form, err := formOf(t, len(c.Inputs))
	if err != nil {
		return nil, fmt.Errorf("Config.Model is a %s: %w", t, err)
	}
	return func(scope *model.Scope, spec any, inputs []*graph.Node) (predictions []*graph.Node) {
		args := []reflect.Value{reflect.ValueOf(scope)}
		if form.spec {
			s := reflect.New(t.In(1)).Elem()
			if spec != nil {
				s.Set(reflect.ValueOf(spec))
			}
			args = append(args, s)
		}
		switch form.last {
		case graphType:
			args = append(args, reflect.ValueOf(inputs[0].Graph()))
		case nodesType:
			args = append(args, reflect.ValueOf(inputs))
		default:
			for _, n := range inputs {
				args = append(args, reflect.ValueOf(n))
			}
		}
		for _, out := range call.Call(args) {
			if nodes, ok := out.Interface().([]*graph.Node); ok {
				predictions = append(predictions, nodes...)
			} else {
				predictions = append(predictions, out.Interface().(*graph.Node))
			}
		}
		return predictions
	}, nil
}

var (
	scopeType = reflect.TypeFor[*model.Scope]()
	graphType = reflect.TypeFor[*graph.Graph]()
	nodeType  = reflect.TypeFor[*graph.Node]()
	nodesType = reflect.TypeFor[[]*graph.Node]()
)

// form is how a model function is called: after the scope, perhaps a spec, then a graph, nodes or a slice of nodes.
type form struct {
	spec bool
	last reflect.Type
}

func formOf(t reflect.Type, inputs int) (f form, err error) {
	wrong := errors.New("not a signature of train.ModelFnCompatible")
	if t.NumIn() < 2 || t.IsVariadic() || t.In(0) != scopeType {
		return f, wrong
	}
	at := 1
	if f.spec = t.In(1).Kind() == reflect.Interface && t.In(1).NumMethod() == 0; f.spec {
		at++
	}
	if at == t.NumIn() {
		return f, wrong
	}
	f.last = t.In(at)
	for i := at; i < t.NumIn(); i++ {
		if t.In(i) != nodeType && (i > at || f.last != graphType && f.last != nodesType) {
			return f, wrong
		}
	}
	if n := t.NumIn() - at; f.last == nodeType && n != inputs {
		return f, fmt.Errorf("it takes %d inputs, Config.Inputs has %d", n, inputs)
	}
	for i := range t.NumOut() {
		if t.Out(i) != nodeType && (t.Out(i) != nodesType || t.NumOut() > 1) {
			return f, wrong
		}
	}
	return f, nil
}

// notice warns of a loss that looks at pairs of samples: what it sees is a micro-batch.
func (c *Config) notice() string {
	if !strings.Contains(strings.ToLower(c.lossFunction()), "triplet") {
		return ""
	}
	return "the loss compares samples of one micro-batch with each other: the size of a micro-batch is part of the " +
		"model"
}

// lossFunction is the name of Loss with its package; "" for none.
func (c *Config) lossFunction() string {
	if c.Loss == nil {
		return ""
	}
	if f := runtime.FuncForPC(reflect.ValueOf(c.Loss).Pointer()); f != nil {
		return f.Name()
	}
	return ""
}
