// Package example holds a tiny task for the tests of this module: softmax regression with plain SGD, in plain Go, on
// points of a plane, written against package evenweave alone. It is not the program in examples/softmax, which is for
// readers: tests here import a model (that one is a main package of another module), change its state by hand and need
// steps of microseconds. See the Example.
package example

import (
	"context"
	"fmt"
	"math"

	"evenweave"
)

const (
	features = 2
	classes  = 3
	rate     = 0.5
)

// Softmax is the model. Its whole state is its parameters: SGD keeps nothing else.
type Softmax struct{ *evenweave.Memory }

// NewSoftmax returns a model whose weights are all zero.
func NewSoftmax() *Softmax {
	return &Softmax{evenweave.NewMemory(evenweave.Tensor{
		Name: "weights", Shape: []int{classes, features + 1}, Role: evenweave.Trained,
	})}
}

// Metrics names the sums that Gradients reports beside the loss.
func Metrics() []string { return []string{"accuracy"} }

// Weights is the live state, for tests to look at and to damage.
func (m *Softmax) Weights() []float32 { return m.Values[0] }

// Init implements evenweave.Model: all weights are zero, whatever the seed.
func (m *Softmax) Init(uint64) error {
	clear(m.Values[0])
	return nil
}

// Gradients implements evenweave.Model. Samples of weight 0 pad the last batch of an epoch and add nothing.
func (m *Softmax) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	s, ok := b.Content.(*Samples)
	if !ok {
		return evenweave.Sums{}, fmt.Errorf("a batch of %T, this model takes *example.Samples", b.Content)
	}
	grad := grads[0]
	clear(grad)
	loss, weight, right := float32(0), int64(0), int64(0)
	for i, label := range s.Labels {
		x := s.Points[i]
		p := m.probabilities(x)
		for class := range classes {
			wrong := s.Weights[i] * p[class]
			if class == int(label) {
				wrong -= s.Weights[i]
			}
			g := grad[class*(features+1):]
			for f, v := range x {
				g[f] += wrong * scaled(v)
			}
			g[features] += wrong
		}
		loss -= s.Weights[i] * float32(math.Log(float64(p[label])))
		if s.Weights[i] > 0 {
			weight++
			if most(p) == int(label) {
				right++
			}
		}
	}
	return evenweave.Sums{Loss: float64(loss), Weight: weight, Metrics: []int64{right}}, nil
}

// Update implements evenweave.Model: one step of SGD.
func (m *Softmax) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.Values[0][i] -= rate * g
	}
	return nil
}

// Evaluate implements evenweave.Evaluator.
func (m *Softmax) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	return evenweave.Means(ctx, m, data, data.Len(), Metrics()...)
}

func (m *Softmax) probabilities(x [features]byte) (p [classes]float32) {
	sum := float32(0)
	for class := range classes {
		w := m.Values[0][class*(features+1):]
		z := w[features]
		for f, v := range x {
			z += w[f] * scaled(v)
		}
		p[class] = float32(math.Exp(float64(z)))
		sum += p[class]
	}
	for class := range classes {
		p[class] /= sum
	}
	return p
}

func scaled(v byte) float32 { return float32(v)/127.5 - 1 } // to [-1, 1]

func most(p [classes]float32) (best int) {
	for class := range p {
		if p[class] > p[best] {
			best = class
		}
	}
	return best
}
