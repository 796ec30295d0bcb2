package evenweave_test

import (
	"fmt"
	"log"

	"evenweave"
)

// line is data: the points (x, 2x+1) for x from -1 to 1.
type line struct{ points int }

func (l line) Len() int       { return l.points }
func (l line) Digest() string { return fmt.Sprintf("%d points of the line 2x+1", l.points) }

// Load fills the batch with the x of its samples. Padding is left out, so it has no weight.
func (l line) Load(b *evenweave.Batch) error {
	var xs []float64
	for _, i := range b.Samples {
		if i != evenweave.Padding {
			xs = append(xs, 2*float64(i)/float64(l.points-1)-1)
		}
	}
	b.Content = xs
	return nil
}

// regression is a model: y = ax + b, trained by gradient descent. Its state is one tensor, [a, b].
type regression struct{ *evenweave.Memory }

func newRegression() *regression {
	return &regression{evenweave.NewMemory(
		evenweave.Tensor{Name: "weights", Shape: []int{2}, Role: evenweave.Trained})}
}

func (m *regression) Init(uint64) error { clear(m.Values[0]); return nil }

// Gradients is the gradient of the sum of (ax+b-y)^2/2.
func (m *regression) Gradients(b *evenweave.Batch, grads [][]float32) (sums evenweave.Sums, err error) {
	clear(grads[0])
	a, constant := float64(m.Values[0][0]), float64(m.Values[0][1])
	for _, x := range b.Content.([]float64) {
		d := a*x + constant - (2*x + 1)
		grads[0][0] += float32(d * x)
		grads[0][1] += float32(d)
		sums.Loss += d * d / 2
		sums.Weight++
	}
	return sums, nil
}

func (m *regression) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.Values[0][i] -= 0.5 * g
	}
	return nil
}

// A whole task, and what the trainer does with it: cli.Main(task) would do the same on any number of workers.
func Example() {
	task := &evenweave.Task{
		Name:  "line",
		Data:  func(string) (evenweave.Sets, error) { return evenweave.Sets{Train: line{64}}, nil },
		Model: func(evenweave.Setup) (evenweave.Model, error) { return newRegression(), nil },
	}

	sets, err := task.Data("")
	if err != nil {
		log.Fatal(err)
	}
	model, err := task.Model(evenweave.Setup{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	if err := model.Init(1); err != nil {
		log.Fatal(err)
	}
	b := &evenweave.Batch{Samples: make([]int32, sets.Train.Len())}
	for i := range b.Samples {
		b.Samples[i] = int32(i)
	}
	grads := [][]float32{make([]float32, 2)}
	for step := range int64(100) {
		b.Step = step
		if err := sets.Train.Load(b); err != nil {
			log.Fatal(err)
		}
		sums, err := model.Gradients(b, grads)
		if err != nil {
			log.Fatal(err)
		}
		for i := range grads[0] { // the gradient of the mean
			grads[0][i] /= float32(sums.Weight)
		}
		if err := model.Update(grads, step); err != nil {
			log.Fatal(err)
		}
	}
	weights := model.(*regression).Values[0]
	fmt.Printf("y = %.2fx + %.2f\n", weights[0], weights[1])
	// Output:
	// y = 2.00x + 1.00
}
