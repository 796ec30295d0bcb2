package evenweavetest

import (
	"slices"
	"testing"

	"evenweave"
)

type numbers struct{}

func (numbers) Len() int                    { return 64 }
func (numbers) Digest() string              { return "numbers" }
func (numbers) Load(*evenweave.Batch) error { return nil }

// countdown is a model that subtracts the mean of the samples' numbers.
type countdown struct{ *evenweave.Memory }

func (m countdown) Init(seed uint64) error { m.Values[0][0] = float32(seed); return nil }

func (m countdown) Gradients(b *evenweave.Batch, grads [][]float32) (s evenweave.Sums, err error) {
	grads[0][0] = 0
	for _, sample := range b.Samples {
		if sample != evenweave.Padding {
			s.Weight++
			grads[0][0] += float32(sample)
		}
	}
	return s, nil
}

func (m countdown) Update(mean [][]float32, _ int64) error { m.Values[0][0] -= mean[0][0]; return nil }

// Without a choice a task is tried on the backend that it names first, as its program would do.
func TestVerifyChoosesTheFirstBackend(t *testing.T) {
	var asked []string
	task := &evenweave.Task{
		Name: "countdown",
		Data: func(string) (evenweave.Sets, error) { return evenweave.Sets{Train: numbers{}, Test: numbers{}}, nil },
		Model: func(evenweave.Setup) (evenweave.Model, error) {
			return countdown{evenweave.NewMemory(evenweave.Tensor{Name: "x", Role: evenweave.Trained})}, nil
		},
		Backends: evenweave.Backends{Names: []string{"fast", "slow"},
			Resolve: func(name string) (string, string, error) { asked = append(asked, name); return name, "", nil }},
	}
	Verify(t, task)
	Verify(t, task, Config{Backend: "slow"})
	if want := []string{"fast", "fast", "slow", "slow"}; !slices.Equal(asked, want) {
		t.Errorf("backends %q, want %q", asked, want)
	}
}
