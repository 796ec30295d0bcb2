package evenweave

import (
	"context"
	"errors"
	"fmt"
)

// Evaluator may be implemented by a Model. Evaluate measures the present state on all samples of data, each exactly
// once, without changing the state. The result must not depend on how many workers trained, nor on the machine beyond
// its class of numerics. It heeds ctx.
//
// The first figure is the one that people are shown, and by which the best epoch on held-out samples is chosen.
type Evaluator interface {
	Evaluate(ctx context.Context, data Data) ([]Figure, error)
}

// Figure is one named result of an evaluation.
type Figure struct {
	// Name is short: "accuracy", "loss", "perplexity"; at most 40 printable characters, and no two figures have the
	// same. It is shown as test_NAME. Of at most 64 figures, those that are no finite number are left out.
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Better says in which direction the figure improves: Lower or Higher. An evaluation without is refused.
	Better Direction `json:"better"`
}

// Direction says whether more or less of something is better.
type Direction int8

// Directions of a Figure.
const (
	Lower  Direction = -1
	Higher Direction = 1
)

// Means is an Evaluate for models whose Gradients draws no random numbers: the means of the sums that Gradients gives
// for all samples of data, so many at a time; the last ones are filled up with padding. metrics names Sums.Metrics, as
// Task.Metrics does: they are the first figures, each the better the higher, and the loss is the last.
func Means(ctx context.Context, m Model, data Data, samples int, metrics ...string) ([]Figure, error) {
	if samples < 1 {
		return nil, fmt.Errorf("%d samples at a time: expected at least 1", samples)
	}
	var grads [][]float32 // not looked at
	for _, t := range m.Tensors() {
		if t.Summed() {
			grads = append(grads, make([]float32, t.Elements()))
		}
	}
	total, b := Sums{Metrics: make([]int64, len(metrics))}, &Batch{Samples: make([]int32, samples)}
	for at := 0; at < data.Len(); at += samples {
		for i := range b.Samples {
			if b.Samples[i] = Padding; at+i < data.Len() {
				b.Samples[i] = int32(at + i)
			}
		}
		if err := errors.Join(context.Cause(ctx), data.Load(b)); err != nil {
			return nil, err
		}
		sums, err := m.Gradients(b, grads)
		if err == nil && len(sums.Metrics) != len(metrics) {
			err = fmt.Errorf("the model gives %d metrics, %d are named: %q", len(sums.Metrics), len(metrics), metrics)
		}
		if err != nil {
			return nil, err
		}
		total.Loss, total.Weight = total.Loss+sums.Loss, total.Weight+sums.Weight
		for i, n := range sums.Metrics {
			total.Metrics[i] += n
		}
	}
	if total.Weight <= 0 {
		return nil, fmt.Errorf("the weights of %d samples sum to %d: there is no mean", data.Len(), total.Weight)
	}
	var figures []Figure
	for i, name := range metrics {
		figures = append(figures, Figure{name, float64(total.Metrics[i]) / float64(total.Weight), Higher})
	}
	return append(figures, Figure{"loss", total.Loss / float64(total.Weight), Lower}), nil
}
