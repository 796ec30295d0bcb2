package gomlx

import (
	"bytes"
	"log/slog"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/train/loss"

	"evenweave"
	"evenweave/dataset"
)

// TestLossesAddUp: 50 samples in micro-batches of 16, 16, 16 and 2 have the loss and the gradient of one of 50, with
// regularization, whatever a loss takes the mean of.
func TestLossesAddUp(t *testing.T) {
	const n = 50
	random := evenweave.NewGenerator(3)
	x, y := make([]float32, n*features), make([]float32, n*classes)
	for i := range x {
		x[i] = float32(random.Below(2001))/1000 - 1
	}
	for i := range y {
		y[i] = float32(random.Below(2))
	}
	index := make([]int32, n)
	for i := range index {
		index[i] = int32(random.Below(classes))
	}
	for name, l := range map[string]loss.LossFn{"cross-entropy": loss.SparseCategoricalCrossEntropyLogits,
		"squared error": loss.MeanSquaredError, "absolute error": loss.MeanAbsoluteError,
		"binary cross-entropy": loss.BinaryCrossentropyLogits} {
		c := network{}.config(nil, map[string]any{regularizer.ParamL2: 1e-3})
		label := dataset.Of(index, 1)
		if name != "cross-entropy" {
			label, c.Labels = dataset.Of(y, classes), []shapes.Shape{shapes.Make(dtypes.Float32, classes)}
		}
		c.Loss = l
		d, err := dataset.InMemory([]dataset.Flat{dataset.Of(x, features)}, []dataset.Flat{label})
		if err != nil {
			t.Fatal(err)
		}
		var sums [2]float64
		var grads [2][]float64
		for i, micro := range []int{n, 16} {
			m := open(t, evenweave.Setup{Backend: "go", MicroBatch: micro}, c)
			if err := m.Init(1); err != nil {
				t.Fatal(err)
			}
			for _, b := range batches(t, d, 0, n, micro) {
				parts := buffers(m)
				s, err := m.Gradients(b, parts)
				if err != nil {
					t.Fatal(err)
				}
				sums[i] += s.Loss
				at := 0
				for _, part := range parts {
					for _, g := range part {
						if len(grads[i]) == at {
							grads[i] = append(grads[i], 0)
						}
						grads[i][at] += float64(g)
						at++
					}
				}
			}
		}
		away, length := 0.0, 0.0
		for i, g := range grads[0] {
			away, length = away+math.Pow(g-grads[1][i], 2), length+g*g
		}
		l2 := math.Sqrt(away / length)
		t.Logf("%s: sum %.6f against %.6f, gradient L2 %.1e", name, sums[1], sums[0], l2)
		if math.Abs(sums[0]-sums[1]) > 1e-6*sums[0] || !(l2 < 1e-6) {
			t.Errorf("%s: four micro-batches sum to %v, one to %v; their gradients are %.1e apart", name, sums[1],
				sums[0], l2)
		}
	}
}

// TestLossesOverPairs: a loss that compares samples with each other sees one micro-batch, which is said.
func TestLossesOverPairs(t *testing.T) {
	for says, l := range map[string]loss.LossFn{"": loss.SparseCategoricalCrossEntropyLogits,
		"the size of a micro-batch is part of the model": tripletLoss} {
		c := network{}.config(nil, nil)
		var said bytes.Buffer
		c.Loss = l
		open(t, evenweave.Setup{Backend: "go", MicroBatch: 4, EvaluateOnly: true,
			Log: slog.New(slog.NewTextHandler(&said, nil))}, c)
		if !strings.Contains(said.String(), says) || says == "" && said.Len() > 0 {
			t.Errorf("it says %q, expected %q", said.String(), says)
		}
	}
}

func tripletLoss(labels, predictions []*graph.Node) *graph.Node {
	return loss.TripletLoss([]*graph.Node{graph.Squeeze(labels[0], -1)}, predictions, loss.TripletMiningStrategyAll, 1,
		loss.PairwiseDistanceMetricL2)
}
