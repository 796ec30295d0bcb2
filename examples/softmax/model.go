package main

import (
	"context"
	"fmt"
	"math"

	"evenweave"
)

const perClass = features + 1 // weights, and then a bias

// softmax is softmax regression trained by plain SGD. Its whole state is one tensor, a row for each class.
type softmax struct {
	weights evenweave.Floats
	rate    float32
}

func newSoftmax(rate float64) *softmax {
	return &softmax{make(evenweave.Floats, classes*perClass), float32(rate)}
}

// Tensors implements evenweave.Model.
func (m *softmax) Tensors() []evenweave.Tensor {
	return []evenweave.Tensor{{
		Name: "weights", Type: evenweave.Float32, Shape: []int{classes, perClass}, Role: evenweave.Trained,
	}}
}

// Init implements evenweave.Model: small numbers, a pure function of the seed.
func (m *softmax) Init(seed uint64) error {
	g := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeInit))
	for i := range m.weights {
		m.weights[i] = float32(g.Below(2001))/10000 - 0.1
	}
	return nil
}

// Read implements evenweave.Model.
func (m *softmax) Read(_ int, offset int64, p []byte) error { return m.weights.Read(offset, p) }

// Write implements evenweave.Model.
func (m *softmax) Write(_ int, offset int64, p []byte) error { return m.weights.Write(offset, p) }

// Gradients implements evenweave.Model.
func (m *softmax) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, grad := evenweave.Sums{Metrics: []int64{0}}, grads[0]
	clear(grad)
	for _, p := range b.Content.([]point) {
		probability, guess := m.probabilities(p)
		for c, d := range probability {
			if c == p.cloud {
				d--
			}
			row := grad[c*perClass:]
			for f, x := range p.at {
				row[f] += float32(d * x)
			}
			row[features] += d
		}
		sums.Loss -= math.Log(float64(probability[p.cloud]))
		sums.Weight++
		if guess == p.cloud {
			sums.Metrics[0]++
		}
	}
	return sums, nil
}

// Update implements evenweave.Model: one step of SGD.
func (m *softmax) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.weights[i] -= m.rate * g
	}
	return nil
}

// Close implements evenweave.Model.
func (m *softmax) Close() error { return nil }

// Evaluate implements evenweave.Evaluator.
func (m *softmax) Evaluate(_ context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	right, loss, n := 0.0, 0.0, float64(data.Len())
	b := &evenweave.Batch{Samples: []int32{0}}
	for i := range data.Len() {
		b.Samples[0] = int32(i)
		if err := data.Load(b); err != nil {
			return nil, fmt.Errorf("point %d: %w", i, err)
		}
		p := b.Content.([]point)[0]
		probability, guess := m.probabilities(p)
		if guess == p.cloud {
			right++
		}
		loss -= math.Log(float64(probability[p.cloud]))
	}
	return []evenweave.Figure{{Name: "accuracy", Value: right / n, Better: evenweave.Higher},
		{Name: "loss", Value: loss / n, Better: evenweave.Lower}}, nil
}

// probabilities are those of the classes, and the likeliest of them.
func (m *softmax) probabilities(p point) (out [classes]float32, guess int) {
	sum := float32(0)
	for c := range out {
		row := m.weights[c*perClass:]
		z := row[features]
		for f, x := range p.at {
			z += float32(row[f] * x) // rounded before it is added: no fused multiply-add, on any processor
		}
		out[c] = float32(math.Exp(float64(z)))
		sum += out[c]
	}
	for c := range out {
		if out[c] /= sum; out[c] > out[guess] {
			guess = c
		}
	}
	return out, guess
}
