// Command tabular predicts a number from a row of a table: a CSV file's columns of numbers, and columns of words, each
// word with an embedding that is trained. `tabular generate flats.csv` writes a table to try it on.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

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

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
	"evenweave/gomlx"
)

// table is what its user may choose, and part of what a job is.
type table struct {
	Numbers string  `flag:"numbers" help:"columns of numbers, separated by commas"`
	Words   string  `flag:"words" help:"columns of words, separated by commas"`
	Label   string  `flag:"label" help:"column to predict"`
	Key     string  `flag:"key" help:"column whose equal cells stay in one part, training or test (default: all)"`
	Most    int     `flag:"vocabulary" help:"most different words of a column"`
	Scale   float64 `flag:"scale" help:"usual size of the label: what an output of 1 stands for"`
	Rate    float64 `flag:"rate" help:"learning rate"`
	gomlx.Tuning
}

// Validate implements evenweave.Validator.
func (t *table) Validate() error {
	if t.Numbers == "" || t.Words == "" || t.Label == "" || t.Most < 1 || !(t.Scale > 0) || !(t.Rate > 0) {
		return errors.New("--numbers, --words and --label name columns; --vocabulary, --scale and --rate are above 0")
	}
	return nil
}

func task() *evenweave.Task {
	t := &table{Numbers: "area,rooms,year", Words: "district,heating", Label: "price", Most: 32, Scale: 100, Rate: 0.01}
	return &evenweave.Task{
		Name:     "tabular",
		About:    "A number from the columns of a CSV file",
		Options:  t,
		Data:     t.data,
		Model:    t.model,
		Backends: []string{"xla", "xla:cuda"}, // GoMLX's "go" backend has no batch normalisation
		Backend:  gomlx.Resolve,
		Commands: []evenweave.Command{
			{Name: "generate", Args: "FILE", About: "Write a table of flats", Run: generate},
			{Name: "to-gomlx", Args: "DIR", About: "Write a GoMLX checkpoint", Checkpoint: true, Run: export},
		},
	}
}

func main() { cli.Main(task()) }

func (t *table) data(path string) (evenweave.Sets, error) {
	sets, words, err := dataset.CSV(cmp.Or(path, "flats.csv"), dataset.Table{Numbers: strings.Split(t.Numbers, ","),
		Words: strings.Split(t.Words, ","), Label: t.Label, Key: t.Key, Test: 0.2})
	for column, all := range words {
		if len(all) > t.Most {
			err = fmt.Errorf("column %q has %d different words: add --vocabulary %d", column, len(all), len(all))
		}
	}
	return sets, err
}

func (t *table) model(setup evenweave.Setup) (evenweave.Model, error) {
	numbers, words := 1+strings.Count(t.Numbers, ","), 1+strings.Count(t.Words, ",")
	return gomlx.New(setup, gomlx.Config{
		Model:     t.network,
		Loss:      t.loss,
		Optimizer: optimizer.Adam().Done(),
		Tuning:    t.Tuning,
		Params:    map[string]any{optimizer.ParamLearningRate: t.Rate},
		Inputs:    []shapes.Shape{shapes.Make(dtypes.Float32, numbers), shapes.Make(dtypes.Int32, words)},
		Labels:    []shapes.Shape{shapes.Make(dtypes.Float32, 1)},
		Metrics:   []metric.Interface{metric.NewMeanMetric("mean absolute error", "mae", "mae", absolute, nil)},
	})
}

// network predicts labels, in their own unit.
func (t *table) network(scope *model.Scope, numbers, words *graph.Node) *graph.Node {
	n, columns := words.Shape().Dimensions[0], words.Shape().Dimensions[1]
	table := graph.MulScalar(graph.Iota(words.Graph(), words.Shape(), 1), t.Most) // each column has rows of its own
	x := layers.Embedding(scope.In("words"), graph.Add(words, table), dtypes.Float32, columns*t.Most, 8)
	x = graph.Concatenate([]*graph.Node{graph.Reshape(x, n, -1), norm.BatchNorm(scope, numbers, -1).Done()}, -1)
	for layer := range 2 {
		x = activation.Relu(layers.Dense(scope.In("hidden%d", layer), x, true, 64))
	}
	return graph.MulScalar(layers.Dense(scope.In("output"), x, true, 1), t.Scale)
}

// loss is of the order of 1: sums are in fixed point, which has a range.
func (t *table) loss(labels, predictions []*graph.Node) *graph.Node {
	return loss.MeanSquaredError([]*graph.Node{graph.DivScalar(labels[0], t.Scale)},
		[]*graph.Node{graph.DivScalar(predictions[0], t.Scale)})
}

// export writes a checkpoint that GoMLX reads, and --init-from.
func export(_ context.Context, c *evenweave.Invocation) error {
	return c.Model.(*gomlx.Model).Export(c.Args[0])
}

func absolute(_ *model.Scope, labels, predictions []*graph.Node) *graph.Node {
	return graph.ReduceAllMean(graph.Abs(graph.Sub(predictions[0], labels[0])))
}
