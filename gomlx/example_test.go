package gomlx_test

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/gomlx"
)

// A model function of GoMLX is all that a task needs beside its data.
func Example() {
	classifier := func(scope *model.Scope, image *graph.Node) *graph.Node {
		x := graph.DivScalar(graph.ConvertDType(graph.Reshape(image, -1, 28*28), dtypes.Float32), 255)
		return layers.Dense(scope, x, true, 10)
	}
	task := &evenweave.Task{
		Name:     "digits",
		Metrics:  []string{"accuracy"},
		Backends: []string{"auto", "xla", "xla:cuda", "go"},
		Backend:  gomlx.Resolve,
		Model: func(setup evenweave.Setup) (evenweave.Model, error) {
			return gomlx.New(setup, gomlx.Config{
				Model:     classifier,
				Loss:      loss.SparseCategoricalCrossEntropyLogits,
				Optimizer: optimizer.StochasticGradientDescent(),
				Params:    map[string]any{"learning_rate": 0.1},
				Inputs:    []shapes.Shape{shapes.Make(dtypes.Uint8, 28, 28)},
				Labels:    []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
				Counts:    []gomlx.Count{gomlx.Correct},
			})
		},
	}
	// cli.Main(task) would train it, with Task.Data.
	m, err := task.Model(evenweave.Setup{Backend: "go", MicroBatch: 16})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer m.Close()
	for _, t := range m.Tensors() {
		fmt.Println(t.Name, t.Type, t.Shape, t.Role)
	}
	// Output:
	// dense/biases float32 [10] trained
	// dense/weights float32 [784 10] trained
	// global_step int64 [] kept
	// optimizers/learning_rate float32 [] kept
}
