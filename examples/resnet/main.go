// Command resnet trains a small residual network with batch normalisation on Fashion-MNIST, or on any IDX set of
// images: a GoMLX model, its loss, its optimizer and its data, without a line about distribution.
package main

import (
	"cmp"
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/gomlx/gomlx/ml/train/optimizer/cosineschedule"

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
	"evenweave/gomlx"
)

// resnet is what its user may choose, and part of what a job is.
type resnet struct {
	Width   int     `flag:"width" help:"channels of the first stage; the second has twice as many" min:"1" max:"1024"`
	Depth   int     `flag:"depth" help:"residual blocks of each stage" min:"1" max:"100"`
	Rate    float64 `flag:"rate" help:"highest learning rate, which falls to 0 along a cosine" above:"0"`
	Classes int     `flag:"classes" help:"of the data; labels are below it" min:"2"`
	gomlx.Tuning
}

func task() *evenweave.Task {
	r := &resnet{Width: 48, Depth: 1, Rate: 0.003, Classes: 10}
	return &evenweave.Task{
		Name:     "resnet",
		About:    "A residual network with batch normalisation on Fashion-MNIST",
		Options:  r,
		Data:     r.data,
		Model:    r.model,
		Backends: gomlx.Backends("xla", "xla:cuda"), // the "go" backend has no batch normalisation
		Metrics:  []string{"accuracy"},
	}
}

func main() { cli.Main(task()) }

func (r *resnet) data(dir string) (evenweave.Sets, error) {
	sets, classes, err := dataset.IDX(cmp.Or(dir, "../../.evenweave/data"))
	switch {
	case err != nil:
		return sets, fmt.Errorf("%w; `make setup` fetches Fashion-MNIST, --data names another set", err)
	case classes > r.Classes:
		return sets, fmt.Errorf("the data have %d classes: add --classes %d", classes, classes)
	}
	sets.Train = dataset.Augmented(sets.Train, dataset.Augmentation{Mirror: true, Shift: 1})
	return sets, nil
}

func (r *resnet) model(setup evenweave.Setup) (evenweave.Model, error) {
	return gomlx.New(setup, gomlx.Config{
		Tuning:    r.Tuning,
		Model:     r.network,
		Loss:      loss.SparseCategoricalCrossEntropyLogits,
		Optimizer: optimizer.Adam().WeightDecay(0.05).Done(),
		Params: map[string]any{optimizer.ParamLearningRate: r.Rate, cosineschedule.ParamCycles: 1,
			cosineschedule.ParamWarmUpSteps: int(setup.TotalSteps / 20)},
		Inputs:  []shapes.Shape{shapes.Make(dtypes.Uint8, 28, 28)},
		Labels:  []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
		Counts:  []gomlx.Count{gomlx.Correct},
		Metrics: []metric.Interface{metric.NewSparseCategoricalAccuracy("accuracy", "acc")},
	})
}

// network gives the logits of images. The first convolution halves the sides: most of the work is on 14 x 14.
func (r *resnet) network(scope *model.Scope, images *graph.Node) *graph.Node {
	cosineschedule.New(scope, images.Graph(), dtypes.Float32).FromScope().Done()
	x := graph.DivScalar(graph.ConvertDType(graph.ExpandDims(images, -1), dtypes.Float32), 255)
	x = convolution(scope.In("stem"), x, r.Width, 4, 2)
	for stage := range 2 {
		for block := range r.Depth {
			stride := 1
			if stage > 0 && block == 0 {
				stride = 2
			}
			x = residual(scope.In("stage%d_block%d", stage, block), x, r.Width<<stage, stride)
		}
	}
	x = activation.Relu(norm.BatchNorm(scope.In("last"), x, -1).Momentum(0.9).Done())
	return layers.Dense(scope.In("output"), graph.ReduceMean(x, 1, 2), true, r.Classes)
}

// residual adds what two convolutions make of x to it.
func residual(scope *model.Scope, x *graph.Node, channels, stride int) *graph.Node {
	y := activation.Relu(norm.BatchNorm(scope.In("norm_a"), x, -1).Momentum(0.9).Done())
	if x.Shape().Dimensions[3] != channels || stride > 1 {
		x = convolution(scope.In("shortcut"), y, channels, stride, stride)
	}
	y = convolution(scope.In("conv_a"), y, channels, 3, stride)
	y = activation.Relu(norm.BatchNorm(scope.In("norm_b"), y, -1).Momentum(0.9).Done())
	return graph.Add(x, convolution(scope.In("conv_b"), y, channels, 3, 1))
}

func convolution(scope *model.Scope, x *graph.Node, out, size, stride int) *graph.Node {
	return layers.Convolution(scope, x).Channels(out).KernelSize(size).Strides(stride).UseBias(false).PadSame().Done()
}
