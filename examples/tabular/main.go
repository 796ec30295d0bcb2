// Command tabular predicts a number from a row of a table: a CSV file's columns of numbers, and columns of words, each
// word with an embedding that is trained. `tabular generate flats.csv` writes a table to try it on.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

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

// options are what its user may choose, and part of what a job is.
type options struct {
	dataset.Table
	Scale float64 `flag:"scale" help:"usual size of the label: what an output of 1 stands for" above:"0"`
	Rate  float64 `flag:"rate" help:"learning rate" above:"0"`
	gomlx.Tuning
}

// Validate implements evenweave.Validator.
func (o *options) Validate() error {
	if len(o.Numbers) == 0 || len(o.Words) == 0 || o.Vocabulary == 0 {
		return errors.New("--numbers and --words must name columns, and --vocabulary be at least 1")
	}
	return o.Table.Validate()
}

func task() *evenweave.Task {
	o := &options{Scale: 100, Rate: 0.01, Table: dataset.Table{Numbers: dataset.Columns{"area", "rooms", "year"},
		Words: dataset.Columns{"district", "heating"}, Label: "price", Vocabulary: 32, Test: 0.2}}
	return &evenweave.Task{
		Name:     "tabular",
		About:    "A number from the columns of a CSV file",
		Options:  o,
		Data:     o.data,
		Model:    o.model,
		Backends: gomlx.Backends("xla", "xla:cuda"), // the "go" backend has no batch normalisation
		Commands: []evenweave.Command{gomlx.ExportCommand(),
			{Name: "generate", Args: "FILE", About: "Write a table of flats", Run: generate}},
	}
}

func main() { cli.Main(task()) }

func (o *options) data(path string) (evenweave.Sets, error) {
	sets, _, err := dataset.CSV(cmp.Or(path, "flats.csv"), o.Table)
	return sets, err
}

func (o *options) model(setup evenweave.Setup) (evenweave.Model, error) {
	return gomlx.New(setup, gomlx.Config{
		Model:     o.network,
		Loss:      o.loss,
		Optimizer: optimizer.Adam().Done(),
		Tuning:    o.Tuning,
		Params:    map[string]any{optimizer.ParamLearningRate: o.Rate},
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, len(o.Numbers)),
			shapes.Make(dtypes.Int32, len(o.Words))},
		Labels:  []shapes.Shape{shapes.Make(dtypes.Float32, 1)},
		Metrics: []metric.Interface{gomlx.MeanAbsoluteError()},
	})
}

// network predicts labels, in their own unit. Each column of words has rows of its own in the table of embeddings.
func (o *options) network(scope *model.Scope, numbers, words *graph.Node) *graph.Node {
	n, columns := words.Shape().Dimensions[0], words.Shape().Dimensions[1]
	rows := graph.Add(words, graph.MulScalar(graph.Iota(words.Graph(), words.Shape(), 1), o.Vocabulary))
	x := layers.Embedding(scope.In("words"), rows, dtypes.Float32, columns*o.Vocabulary, 8)
	x = graph.Concatenate([]*graph.Node{graph.Reshape(x, n, -1), norm.BatchNorm(scope, numbers, -1).Done()}, -1)
	for layer := range 2 {
		x = activation.Relu(layers.Dense(scope.In("hidden%d", layer), x, true, 64))
	}
	return graph.MulScalar(layers.Dense(scope.In("output"), x, true, 1), o.Scale)
}

// loss is of the order of 1: sums are in fixed point, which has a range.
func (o *options) loss(labels, predictions []*graph.Node) *graph.Node {
	return loss.MeanSquaredError([]*graph.Node{graph.DivScalar(labels[0], o.Scale)},
		[]*graph.Node{graph.DivScalar(predictions[0], o.Scale)})
}

// generate writes 6,000 flats with their prices, always the same ones. The price, in thousands, is a formula of the
// columns and a noise of up to 20 either way: the best that can be learned of it has a mean absolute error of 10.
func generate(_ context.Context, c *evenweave.Invocation) error {
	districts := []string{"Harbour", "Hills", "Market", "Mill Lane", "North, outer", "Old Town", "South"}
	heatings := []string{"district", "gas", "heat pump", "stove"}
	out := []byte("area,rooms,year,district,heating,price\n")
	for i := range uint64(6000) {
		random := evenweave.NewGenerator(i)
		below := func(n uint64) int { return int(random.Below(n)) }
		district, heating := below(7), below(4)
		area, year := 25+below(150), 1890+below(136)
		rooms := 1 + min(area/30, 1+below(5))
		price := area*[]int{31, 44, 27, 24, 16, 52, 20}[district]/10 + 12*rooms + []int{0, -8, 25, -20}[heating]
		if year > 2000 || year < 1920 && district == 5 { // what is new, and what is old in the Old Town
			price += price / 5
		}
		price += below(41) - 20
		out = fmt.Appendf(out, "%d,%d,%d,%q,%q,%d\n", area, rooms, year, districts[district], heatings[heating], price)
	}
	return os.WriteFile(c.Args[0], out, 0o600)
}
