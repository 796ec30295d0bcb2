package gomlx_test

import (
	"fmt"
	"log"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx"
)

// weightedMean is a loss that divides by the sum of the weights. GoMLX's divide by the number of samples.
func weightedMean(labels, predictions []*graph.Node) *graph.Node {
	one := graph.OneHot(graph.Squeeze(labels[0], -1), 2, dtypes.Float32)
	each := graph.Neg(graph.ReduceSum(graph.Mul(one, graph.LogSoftmax(predictions[0])), -1))
	return graph.Div(graph.ReduceAllSum(graph.Mul(each, labels[1])), graph.ReduceAllSum(labels[1]))
}

func sumOfWeights(labels []*graph.Node) *graph.Node { return graph.ReduceAllSum(labels[1]) }

// The weight of a sample is its second label, a scalar. Config.Weight is by what the loss divides: nothing is said for
// GoMLX's own, which divide by the number of samples. Fractions counts in parts of 1/256: 3.5 of them are 896.
func ExampleConfig_weights() {
	config := gomlx.Config{
		Model:  func(scope *model.Scope, x *graph.Node) *graph.Node { return layers.Dense(scope, x, true, 2) },
		Loss:   loss.SparseCategoricalCrossEntropyLogits,
		Counts: []gomlx.Count{gomlx.Correct},
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, 3)},
		Labels: []shapes.Shape{shapes.Make(dtypes.Int32, 1), shapes.Make(dtypes.Float32)},
	}
	own := config
	own.Loss, own.Weight, own.Fractions = weightedMean, sumOfWeights, true
	own.Counts = []gomlx.Count{gomlx.CorrectBy(1)}

	data, err := dataset.InMemory([]dataset.Flat{dataset.Of(make([]float32, 2*3), 3)},
		[]dataset.Flat{dataset.Of([]int32{0, 1}, 1), dataset.Of([]float32{0.5, 3})})
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range []gomlx.Config{config, own} {
		sums := compute(c, data, 2)
		n := float64(sums.Weight)
		fmt.Printf("weight %d, loss %.3f, accuracy %.3f\n", sums.Weight, sums.Loss/n, float64(sums.Metrics[0])/n)
	}
	// Output:
	// weight 2, loss 1.213, accuracy 0.500
	// weight 896, loss 0.693, accuracy 0.143
}

// Sequences have one length: the shorter ones end in token 0, which the loss and Config.Weight leave out.
func ExampleConfig_sequences() {
	const length, vocabulary = 4, 10
	counts := func(labels []*graph.Node) *graph.Node { // which tokens count, [batch length]
		next := graph.Squeeze(labels[0], -1)
		return graph.GreaterThan(next, graph.ZerosLike(next))
	}
	config := gomlx.Config{
		Model: func(scope *model.Scope, tokens *graph.Node) *graph.Node { // of [batch length vocabulary]
			return layers.Embedding(scope, tokens, dtypes.Float32, vocabulary, vocabulary, false)
		},
		Loss: func(labels, predictions []*graph.Node) *graph.Node { // the mean over the tokens that count
			return loss.SparseCategoricalCrossEntropyLogits([]*graph.Node{labels[0], counts(labels)}, predictions)
		},
		Weight: func(labels []*graph.Node) *graph.Node {
			return graph.ReduceAllSum(graph.ConvertDType(counts(labels), dtypes.Float32))
		},
		Inputs: []shapes.Shape{shapes.Make(dtypes.Int32, length)},
		Labels: []shapes.Shape{shapes.Make(dtypes.Int32, length, 1)},
	}
	tokens := []int32{7, 3, 5, 0 /* and one of a single pair: */, 7, 3, 0, 0}
	next := []int32{3, 5, 2, 0, 3, 0, 0, 0}
	data, err := dataset.InMemory([]dataset.Flat{dataset.Of(tokens, length)},
		[]dataset.Flat{dataset.Of(next, length, 1)})
	if err != nil {
		log.Fatal(err)
	}
	sums := compute(config, data, 2)
	fmt.Printf("%d tokens count, with a loss of %.3f each\n", sums.Weight, sums.Loss/float64(sums.Weight))
	// Output: 4 tokens count, with a loss of 2.303 each
}

// compute is what one micro-batch gives with weights of 0.
func compute(config gomlx.Config, data evenweave.Data, samples int) evenweave.Sums {
	m, err := gomlx.New(evenweave.Setup{Backend: "go", MicroBatch: samples}, config)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	b, grads := &evenweave.Batch{}, [][]float32{}
	for i := range samples {
		b.Samples = append(b.Samples, int32(i))
	}
	for _, t := range m.Tensors() {
		if t.Summed() {
			grads = append(grads, make([]float32, t.Elements()))
		}
	}
	if err := data.Load(b); err != nil {
		log.Fatal(err)
	}
	sums, err := m.Gradients(b, grads)
	if err != nil {
		log.Fatal(err)
	}
	return sums
}
