// Command softmax trains a tiny model with Evenweave: softmax regression, in plain Go, on points of a plane. It is a
// whole program: try `go run . train --workers 3`, then --help.
package main

import (
	"context"
	"math"
	"slices"

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
)

// options are the program's own flags, and part of what a job is.
type options struct {
	Rate   float64 `flag:"rate" help:"learning rate" above:"0"`
	Points int     `flag:"points" help:"training points" min:"1" max:"1000000"`
}

// data are points of three clouds, each with the number of its cloud. Every process makes the same ones: point i is a
// pure function of i. The last 3,000 are the test part.
func (o *options) data(string) (sets evenweave.Sets, err error) {
	var points []float32
	var clouds []int32
	for i := range o.Points + 3000 {
		noise := evenweave.NewGenerator(uint64(i))
		for _, centre := range [3][2]float32{{1, 0}, {-0.5, 0.875}, {-0.5, -0.875}}[i%3] {
			points = append(points, centre+(float32(noise.Below(2001))-1000)/1000)
		}
		clouds = append(clouds, int32(i%3))
	}
	all, err := dataset.InMemory([]dataset.Flat{dataset.Of(points, 2)}, []dataset.Flat{dataset.Of(clouds)})
	if err == nil {
		sets.Train, sets.Test, err = dataset.Split(all, 3000)
	}
	return sets, err
}

// softmax is softmax regression trained by plain SGD. Its whole state is one tensor, in the memory of this process: for
// each cloud a row of two weights and a bias.
type softmax struct {
	*evenweave.Memory
	rate float32
}

// Init implements evenweave.Model: small numbers, a pure function of the seed.
func (m *softmax) Init(seed uint64) error {
	g := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeInit))
	for i := range m.Values[0] {
		m.Values[0][i] = float32(g.Below(2001))/10000 - 0.1
	}
	return nil
}

// Gradients implements evenweave.Model: sums over the points of a batch, a pure function of them and the weights. Each
// product is rounded before it is added: no fused multiply-add, on any processor.
func (m *softmax) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	content, sums := b.Content.(*dataset.Content), evenweave.Sums{Metrics: []int64{0}}
	points, clouds := dataset.Values[float32](content.Inputs[0]), dataset.Values[int32](content.Labels[0])
	clear(grads[0])
	for i, weight := range content.Weights {
		if weight == 0 {
			continue // padding adds nothing to any sum
		}
		x, y, cloud := points[2*i], points[2*i+1], int(clouds[i])
		p, total := [3]float32{}, float32(0) // the clouds' probabilities, once they are divided by their total
		for c := range p {
			row := m.Values[0][3*c:]
			p[c] = float32(math.Exp(float64(row[2] + float32(row[0]*x) + float32(row[1]*y))))
			total += p[c]
		}
		for c := range p {
			p[c] /= total
			d := p[c]
			if c == cloud {
				d--
			}
			row := grads[0][3*c:]
			row[0], row[1], row[2] = row[0]+float32(d*x), row[1]+float32(d*y), row[2]+d
		}
		sums.Loss -= math.Log(float64(p[cloud]))
		sums.Weight++
		if p[cloud] == slices.Max(p[:]) {
			sums.Metrics[0]++
		}
	}
	return sums, nil
}

// Update implements evenweave.Model: one step of SGD.
func (m *softmax) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.Values[0][i] -= float32(m.rate * g)
	}
	return nil
}

// Evaluate implements evenweave.Evaluator: by the sums of Gradients, which draws no random numbers.
func (m *softmax) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	return evenweave.Means(ctx, m, data, 64, "accuracy")
}

func task() *evenweave.Task {
	o := &options{Rate: 0.1, Points: 6000}
	return &evenweave.Task{
		Name:    "softmax",
		About:   "softmax regression on three clouds of points",
		Options: o,
		Data:    o.data,
		Metrics: []string{"accuracy"},
		Model: func(evenweave.Setup) (evenweave.Model, error) {
			weights := evenweave.Tensor{Name: "weights", Shape: []int{3, 3}, Role: evenweave.Trained}
			return &softmax{evenweave.NewMemory(weights), float32(o.Rate)}, nil
		},
	}
}

func main() { cli.Main(task()) }
