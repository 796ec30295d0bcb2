package gomlx_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx"
)

func classifier(scope *model.Scope, image *graph.Node) *graph.Node {
	x := graph.DivScalar(graph.ConvertDType(graph.Reshape(image, -1, 28*28), dtypes.Float32), 255)
	return layers.Dense(scope, x, true, 10)
}

// A model function of GoMLX is all that a task needs beside its data.
func Example() {
	task := &evenweave.Task{
		Name:     "digits",
		Metrics:  []string{"accuracy"},
		Backends: gomlx.Backends(), // for --backend: auto, xla, xla:cuda, go
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

// A program loads what `train --dir ./run` has left, and predicts. It needs the model function, not what trained it.
func ExampleLoad() {
	run := trained()
	defer os.RemoveAll(run)
	ctx, picture := context.Background(), make([]uint8, 28*28)

	m, err := gomlx.Load(ctx, run, gomlx.Config{
		Model:  classifier,
		Inputs: []shapes.Shape{shapes.Make(dtypes.Uint8, 28, 28)},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	out, err := m.Predict(dataset.Of(picture, 28, 28)) // one picture, or many
	if err != nil {
		log.Fatal(err)
	}
	logits := dataset.Values[float32](out[0])
	fmt.Println(len(logits), "logits; a black picture's are the biases:", logits[0])
	// Output:
	// 10 logits; a black picture's are the biases: 0
}

// trained stands for a run that has ended.
func trained() (dir string) {
	m, err := gomlx.New(evenweave.Setup{Backend: "go", MicroBatch: 16}, gomlx.Config{
		Model: classifier, Loss: loss.SparseCategoricalCrossEntropyLogits,
		Inputs: []shapes.Shape{shapes.Make(dtypes.Uint8, 28, 28)}, Labels: []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
	})
	if err == nil {
		defer m.Close()
		dir, err = os.MkdirTemp("", "run")
	}
	if err == nil {
		_, err = gomlx.Save(context.Background(), m, dir)
	}
	if err != nil {
		log.Fatal(err)
	}
	return dir
}
