package worker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/schedule"
)

// TestStepBytes: they are those of the buffer that the ranks sum.
func TestStepBytes(t *testing.T) {
	tensors := []evenweave.Tensor{
		{Name: "w", Type: evenweave.Float32, Shape: []int{7, 100}, Role: evenweave.Trained},
		{Name: "mean", Type: evenweave.Float32, Shape: []int{3}, Role: evenweave.Averaged},
		{Name: "moment", Type: evenweave.Float32, Shape: []int{7, 100}, Role: evenweave.Kept},
	}
	plan := schedule.Plan{Samples: 64, GlobalBatch: 32, MicroBatch: 4}
	for _, size := range []int{1, 3, 8} {
		n, err := StepBytes(tensors, 2, plan, size)
		if want := 8 * len(newBuffer(exact.NewBlocks([]int{700, 3}), 703, 2, plan).of(size).words); n != want ||
			err != nil {
			t.Errorf("%d bytes for %d ranks, expected %d: %v", n, size, want, err)
		}
	}
	if _, err := StepBytes(nil, 2, plan, 1); err == nil {
		t.Error("a model without tensors has a step")
	}
}

// Lanes that add at the same time give the buffer that one lane gives, thousands of micro-batches too: with a verdict
// of the first element that is not finite.
func TestLanesAddAtTheSameTime(t *testing.T) {
	for _, microBatches := range []int{8, 2048} {
		plan := schedule.Plan{Samples: microBatches, Seed: 1, GlobalBatch: microBatches, MicroBatch: 1}
		blocks := exact.NewBlocks([]int{3, 5000, 700})
		fill := func(lanes int) *buffer {
			b := newBuffer(blocks, 5703, 1, plan).of(1)
			exponents := make([]int32, blocks.Count())
			var adding sync.WaitGroup
			for lane := range lanes {
				adding.Go(func() {
					grad := make([]float32, 5703)
					for v := lane; v < microBatches; v += lanes {
						random := evenweave.NewGenerator(uint64(v))
						for i := range grad {
							grad[i] = float32(int32(random.Uint64())) / (1 << 50)
						}
						if v == 5 {
							grad[5000], grad[77] = float32(math.Inf(1)), float32(math.NaN())
						}
						b.add(&evenweave.Batch{MicroBatch: v, Samples: []int32{int32(v)}}, grad, exponents,
							evenweave.Sums{Loss: 1, Weight: 1, Metrics: []int64{int64(v)}})
					}
				})
			}
			adding.Wait()
			return b
		}
		one, four := fill(1), fill(4)
		if one.verdict[5] != 78 {
			t.Errorf("verdict %d, expected that of element 77", one.verdict[5])
		}
		if !slices.Equal(one.verdict, four.verdict) || !slices.Equal(one.sums, four.sums) ||
			!slices.Equal(one.coverage, four.coverage) || !slices.Equal(one.samples, four.samples) {
			t.Errorf("%d micro-batches: the slots differ", microBatches)
		}
		if clean := one.bounds[10]; clean != four.bounds[10] || !slices.Equal(one.gradient, four.gradient) {
			t.Errorf("%d micro-batches: the sums differ", microBatches)
		}
	}
}

// A panic in a lane, of data or of a model, is an error of its step, as one that they return.
func TestAPanicIsAnErrorOfTheStep(t *testing.T) {
	spec := job.Spec{Samples: 300, GlobalBatch: 8, MicroBatch: 4, Epochs: 1}
	r, err := newReplica(job.Job{Spec: spec}, &faulty{Softmax: example.NewSoftmax(),
		poison: func(*evenweave.Batch, []float32) { panic("no device") }})
	if err != nil {
		t.Fatal(err)
	}
	g := &generation{replica: r, sampler: schedule.NewSampler(spec.Plan()), data: example.Points{}}
	l := &lane{batch: evenweave.Batch{Samples: make([]int32, 4)}, grads: [][]float32{make([]float32, 9)}}
	if err := l.microBatch(g, 0); err == nil || err.Error() != "panic: no device" {
		t.Errorf("of the model: %v", err)
	}
	g.data = delayed{example.Points{}, func(*evenweave.Batch) { panic("no sample") }}
	if err := l.microBatch(g, 0); err == nil || err.Error() != "panic: no sample" {
		t.Errorf("of the data: %v", err)
	}
}

// What is wrong with every micro-batch is said once; each of several faults is.
func TestTheSameFaultIsSaidOnce(t *testing.T) {
	odd, ended := errors.New("odd"), context.Canceled
	err := joinDistinct([]error{nil, odd, fmt.Errorf("even"), nil, errors.New("odd"), fmt.Errorf("%w", ended), ended})
	if err == nil || err.Error() != "odd\neven\ncontext canceled" || !errors.Is(err, odd) || !errors.Is(err, ended) {
		t.Errorf("%v", err)
	}
	if err := joinDistinct([]error{nil, nil}); err != nil {
		t.Errorf("of no fault: %v", err)
	}
}
