package gomlx

import (
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	gomlxdata "github.com/gomlx/gomlx/ml/dataset"
	"github.com/gomlx/gomlx/ml/train"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx/backend"
)

// TestDataOfGoMLX: what GoMLX's own trainer would be given is read by index.
func TestDataOfGoMLX(t *testing.T) {
	device, _, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Finalize()
	whole, err := gomlxdata.InMemoryFromData(device, "pairs", []any{[][]float32{{1, 2}, {3, 4}, {5, 6}}},
		[]any{[]int32{7, 8, 9}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := InMemory(whole.BatchSize(2, false), 1000) // the last batch has one sample
	if err != nil {
		t.Fatal(err)
	}
	b := &evenweave.Batch{Samples: []int32{2, 0, evenweave.Padding}}
	if err := d.Load(b); err != nil {
		t.Fatal(err)
	}
	c := b.Content.(*dataset.Content)
	if x, y := dataset.Values[float32](c.Inputs[0]), dataset.Values[int32](c.Labels[0]); d.Len() != 3 ||
		!slices.Equal(x, []float32{5, 6, 1, 2, 0, 0}) || !slices.Equal(y, []int32{9, 7, 0}) {
		t.Errorf("%d samples; those at 2 and 0 are %v, %v", d.Len(), x, y)
	}
	if _, err := InMemory(whole.Infinite(true), 1000); err == nil || !strings.Contains(err.Error(), "must it end") {
		t.Errorf("a data set without end: %v", err)
	}
	vector := func(values ...float32) train.Batch {
		return train.Batch{Inputs: []*tensors.Tensor{tensors.FromValue(values)}}
	}
	wide := train.Batch{Inputs: []*tensors.Tensor{tensors.FromValue([][]float32{{1, 2}})}}
	for says, all := range map[string][]train.Batch{
		"batch 0 of given: tensor 0 is a " +
			"scalar": {{Inputs: []*tensors.Tensor{tensors.FromValue(float32(1))}}},
		"batch 1 of given: tensor 0 has samples of (Float32)[2], those before have float32[]": {vector(1), wide},
		"batch 0 of given: tensor 0 is of type Int16: convert it": {{Inputs: []*tensors.Tensor{
			tensors.FromValue([]int16{1})}}},
		"batch 1 of given: 0 tensors, those before have 1": {vector(1), {}},
		"batch 0 of given: it has the spec other":          {{Spec: "other"}},
		"no inputs": nil,
	} {
		if _, err := InMemory(given(all), 1000); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, expected an error with %q", err, says)
		}
	}
}

// given is a data set of these batches.
type given []train.Batch

func (given) Name() string { return "given" }
func (g given) Iter() iter.Seq2[train.Batch, error] {
	return func(yield func(train.Batch, error) bool) {
		for _, b := range g {
			if !yield(b, nil) {
				return
			}
		}
	}
}
