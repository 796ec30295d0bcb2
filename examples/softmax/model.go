package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"evenweave"
)

// softmax is softmax regression trained by plain SGD. Its whole state is one tensor: a row for each class, its weights
// and then its bias.
type softmax struct {
	weights [classes][features + 1]float32
	rate    float32
}

// Tensors implements evenweave.Model.
func (m *softmax) Tensors() []evenweave.Tensor {
	return []evenweave.Tensor{{
		Name: "weights", Type: evenweave.Float32, Shape: []int{classes, features + 1}, Role: evenweave.Trained,
	}}
}

// Init implements evenweave.Model: small numbers, a pure function of the seed.
func (m *softmax) Init(seed uint64) error {
	g := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeInit))
	for c := range m.weights {
		for f := range m.weights[c] {
			m.weights[c][f] = float32(g.Below(2001))/10000 - 0.1
		}
	}
	return nil
}

// Read implements evenweave.Model.
func (m *softmax) Read(_ int, offset int64, p []byte) error {
	copy(p, m.encode()[offset:])
	return nil
}

// Write implements evenweave.Model.
func (m *softmax) Write(_ int, offset int64, p []byte) error {
	b := m.encode()
	copy(b[offset:], p)
	_, err := binary.Decode(b, binary.LittleEndian, &m.weights)
	return err
}

func (m *softmax) encode() []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, m.weights) // arrays of float32 can be encoded
	return b
}

// Gradients implements evenweave.Model.
func (m *softmax) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, grad := evenweave.Sums{Metrics: []int64{0}}, grads[0]
	clear(grad)
	for _, p := range b.Content.([]point) {
		probability := m.probabilities(p)
		for c := range classes {
			d := probability[c]
			if c == p.cloud {
				d--
			}
			row := grad[c*(features+1):]
			for f, x := range p.at {
				row[f] += float32(d * x)
			}
			row[features] += d
		}
		sums.Loss -= math.Log(float64(probability[p.cloud]))
		sums.Weight++
		if m.guess(p) == p.cloud {
			sums.Metrics[0]++
		}
	}
	return sums, nil
}

// Update implements evenweave.Model: one step of SGD.
func (m *softmax) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.weights[i/(features+1)][i%(features+1)] -= m.rate * g
	}
	return nil
}

// Close implements evenweave.Model.
func (m *softmax) Close() error { return nil }

// Evaluate implements evenweave.Evaluator.
func (m *softmax) Evaluate(_ context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	right, loss := 0, 0.0
	b := &evenweave.Batch{Samples: []int32{0}}
	for i := range data.Len() {
		b.Samples[0] = int32(i)
		if err := data.Load(b); err != nil {
			return nil, fmt.Errorf("point %d: %w", i, err)
		}
		p := b.Content.([]point)[0]
		if m.guess(p) == p.cloud {
			right++
		}
		loss -= math.Log(float64(m.probabilities(p)[p.cloud]))
	}
	n := float64(data.Len())
	return []evenweave.Figure{
		{Name: "accuracy", Value: float64(right) / n, Better: evenweave.Higher},
		{Name: "loss", Value: loss / n, Better: evenweave.Lower},
	}, nil
}

func (m *softmax) probabilities(p point) (out [classes]float32) {
	sum := float32(0)
	for c, row := range m.weights {
		z := row[features]
		for f, x := range p.at {
			z += float32(row[f] * x) // rounded before it is added: no fused multiply-add, on any processor
		}
		out[c] = float32(math.Exp(float64(z)))
		sum += out[c]
	}
	for c := range out {
		out[c] /= sum
	}
	return out
}

func (m *softmax) guess(p point) (best int) {
	probability := m.probabilities(p)
	for c := range probability {
		if probability[c] > probability[best] {
			best = c
		}
	}
	return best
}
