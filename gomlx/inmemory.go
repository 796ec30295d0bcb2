package gomlx

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/train"

	"evenweave"
	"evenweave/dataset"
	"evenweave/internal/guard"
)

// InMemory reads a GoMLX data set of batches to its end and keeps the samples, to be read by index. It must give the
// same samples in the same order in each process, so neither shuffle nor augment: --seed and dataset.Augmented do that.
// More than so many bytes, as of one that does not end, are refused. Data too large for memory are a dataset.Source.
func InMemory(batches train.Dataset, most int64) (data evenweave.Data, err error) {
	defer guard.RecoverThrown(&err, "reading "+batches.Name())
	var inputs, labels []dataset.Flat
	var n, size int64
	for batch, err := range batches.Iter() {
		if err == nil {
			err = errors.Join(collect(&inputs, batch.Inputs, n == 0), collect(&labels, batch.Labels, n == 0))
		}
		if err == nil && batch.Spec != nil {
			err = fmt.Errorf("it has the spec %v: name one for all batches, Config.Spec", batch.Spec)
		}
		if err = errors.Join(err, batch.Finalize()); err != nil {
			return nil, fmt.Errorf("batch %d of %s: %w", n, batches.Name(), err)
		}
		n, size = n+1, 0
		for _, f := range slices.Concat(inputs, labels) {
			size += int64(len(f.Bytes))
		}
		if size > most {
			return nil,
				fmt.Errorf("%s: %d bytes after %d batches, expected at most %d: must it end (no Infinite), or is "+
					"it too large for memory", batches.Name(), size, n, most)
		}
	}
	return dataset.InMemory(inputs, labels)
}

// collect appends the samples of a batch, whose first axis counts them.
func collect(all *[]dataset.Flat, batch []*tensors.Tensor, first bool) error {
	if first {
		*all = make([]dataset.Flat, len(batch))
	}
	if len(batch) != len(*all) {
		return fmt.Errorf("%d tensors, those before have %d", len(batch), len(*all))
	}
	for i, tensor := range batch {
		shape, to := tensor.Shape(), &(*all)[i]
		if shape.Rank() == 0 {
			return fmt.Errorf("tensor %d is a scalar: expected batches, whose first axis counts samples", i)
		}
		one := shapes.Make(shape.DType, shape.Dimensions[1:]...)
		if first {
			to.Type, to.Shape = types()[one.DType], one.Dimensions
		}
		if types()[one.DType] == "" {
			return fmt.Errorf("tensor %d is of type %s: convert it, to int32 or float32 for example", i, one.DType)
		}
		if types()[one.DType] != to.Type || !slices.Equal(one.Dimensions, to.Shape) {
			return fmt.Errorf("tensor %d has samples of %s, those before have %s%v", i, one, to.Type, to.Shape)
		}
		err := tensor.ConstBytes(func(bytes []byte) { to.Bytes = append(to.Bytes, bytes...) })
		if err != nil {
			return fmt.Errorf("tensor %d: %w", i, err)
		}
	}
	return nil
}
