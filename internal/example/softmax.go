// Package example holds a second, tiny model: softmax regression with plain SGD, in plain Go, on points of a plane. It goes through the
// same seams as the CNN (worker.Model and worker.Dataset), so the CNN is a guest of the trainer and not its house. See the Example.
package example

import (
	"fmt"
	"math"

	"evenweave"

	"evenweave/internal/schedule"
)

const (
	features   = 2
	classes    = 3
	parameters = classes * (features + 1) // for each class: its weights, then its bias
	rate       = 0.5
)

// Softmax is the model. Its whole state is its parameters: SGD keeps nothing else.
type Softmax struct{ weights []float32 }

// NewSoftmax returns a model whose weights are all zero.
func NewSoftmax() *Softmax { return &Softmax{make([]float32, parameters)} }

// Parameters implements worker.Model.
func (m *Softmax) Parameters() int { return parameters }

// ParameterName implements worker.Model.
func (m *Softmax) ParameterName(i int) string {
	return fmt.Sprintf("class %d, weight %d", i/(features+1), i%(features+1))
}

// State implements worker.Model.
func (m *Softmax) State() []float32 { return m.weights }

// SetState implements worker.Model.
func (m *Softmax) SetState(values []float32) error {
	if len(values) != parameters {
		return fmt.Errorf("state has %d values, this model needs %d", len(values), parameters)
	}
	copy(m.weights, values)
	return nil
}

// Gradients implements worker.Model. Samples of weight 0 pad the last batch of an epoch and add nothing.
func (m *Softmax) Gradients(b *schedule.Batch, grad []float32) (loss float32, correct int, err error) {
	clear(grad)
	for i, label := range b.Labels {
		x := b.Inputs[i*features : (i+1)*features]
		p := m.probabilities(x)
		for class := range classes {
			wrong := b.Weights[i] * p[class]
			if class == int(label) {
				wrong -= b.Weights[i]
			}
			g := grad[class*(features+1):]
			for f, v := range x {
				g[f] += wrong * scaled(v)
			}
			g[features] += wrong
		}
		loss -= b.Weights[i] * float32(math.Log(float64(p[label])))
		if b.Weights[i] > 0 && most(p) == int(label) {
			correct++
		}
	}
	return loss, correct, nil
}

// Update implements worker.Model: one step of SGD.
func (m *Softmax) Update(mean []float32, _ int64) error {
	for i, g := range mean {
		m.weights[i] -= rate * g
	}
	return nil
}

func (m *Softmax) probabilities(x []byte) (p [classes]float32) {
	sum := float32(0)
	for class := range classes {
		w := m.weights[class*(features+1):]
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

// Points is the data set: three clouds of points, sample i in cloud i mod 3. Each point is a pure function of its index.
type Points struct{}

// Load implements worker.Dataset.
func (Points) Load(b *schedule.Batch) error {
	b.Inputs, b.Labels, b.Weights = b.Inputs[:0], b.Labels[:0], b.Weights[:0]
	for _, i := range b.Samples {
		if i == evenweave.Padding {
			b.Inputs, b.Labels, b.Weights = append(b.Inputs, 0, 0), append(b.Labels, 0), append(b.Weights, 0)
			continue
		}
		cloud := int(i) % classes
		angle := 2 * math.Pi * float64(cloud) / classes
		noise := evenweave.NewGenerator(uint64(i))
		at := func(centre float64) byte { return byte(128 + 55*centre + float64(noise.Below(80)) - 40) }
		b.Inputs = append(b.Inputs, at(math.Cos(angle)), at(math.Sin(angle)))
		b.Labels, b.Weights = append(b.Labels, uint8(cloud)), append(b.Weights, 1)
	}
	return nil
}
