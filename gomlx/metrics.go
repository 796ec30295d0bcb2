package gomlx

import (
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
)

// Perplexity is the metric of language models: e to the mean cross-entropy of all tokens, so 256 for a guess among
// bytes. Labels are indices, as loss.SparseCategoricalCrossEntropyLogits takes them. Use a new one for each model.
func Perplexity() metric.Interface {
	return perplexity{metric.NewMeanMetric("Perplexity", "ppl", "perplexity",
		func(_ *model.Scope, labels, predictions []*graph.Node) *graph.Node {
			return graph.ReduceAllMean(loss.SparseCategoricalCrossEntropyLogits(labels, predictions))
		}, nil)}
}

type perplexity struct{ *metric.MeanMetric }

// UpdateGraph implements metric.Interface.
func (p perplexity) UpdateGraph(scope *model.Scope, labels, predictions []*graph.Node) *graph.Node {
	return graph.Exp(p.MeanMetric.UpdateGraph(scope, labels, predictions))
}

// MeanAbsoluteError is the metric of predicted numbers: how far they are from the labels, in the labels' unit. Use a
// new one for each model.
func MeanAbsoluteError() metric.Interface {
	return metric.NewMeanMetric("mean absolute error", "mae", "mae",
		func(_ *model.Scope, labels, predictions []*graph.Node) *graph.Node {
			label := graph.ConvertDType(labels[0], predictions[0].DType())
			label = graph.Reshape(label, predictions[0].Shape().Dimensions...)
			return graph.ReduceAllMean(graph.Abs(graph.Sub(predictions[0], label)))
		}, nil)
}
