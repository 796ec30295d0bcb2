package dataset

import (
	"fmt"
	"math"
	"slices"

	"evenweave"
)

// Content is what the data of this package loads into Batch.Content. A model reads it until the batch is loaded again.
type Content struct {
	// Inputs and Labels hold the samples of the micro-batch, one Flat for each tensor. Padding is all zero.
	Inputs, Labels []Flat
	// Weights has one weight a sample, 0 for padding.
	Weights []float32
}

// Flat is a tensor whose first axis counts samples.
type Flat struct {
	Type evenweave.DType
	// Shape of one sample, without the axis that counts samples; empty for a scalar.
	Shape []int
	// Bytes of the samples, one after the other: elements in row-major order, each little-endian.
	Bytes []byte
}

// maxSampleBytes bounds one sample of one tensor, and so what a wrong shape can allocate.
const maxSampleBytes = math.MaxInt32

// SampleBytes is the number of bytes of one sample. An unknown type, a dimension below 1 and a sample of 2 GiB or more
// are errors.
func (f Flat) SampleBytes() (int, error) {
	n := f.Type.Size()
	if n == 0 {
		return 0, fmt.Errorf("unknown element type %q", f.Type)
	}
	for _, d := range f.Shape {
		if d < 1 || d > maxSampleBytes/n {
			return 0, fmt.Errorf("%s with shape %v: expected dimensions of at least 1 and at most %d bytes a sample",
				f.Type, f.Shape, maxSampleBytes)
		}
		n *= d
	}
	return n, nil
}

// Sample returns the bytes of sample i; they belong to f.
func (f Flat) Sample(i int) []byte {
	n, err := f.SampleBytes()
	if err != nil {
		panic("dataset: " + err.Error())
	}
	return f.Bytes[i*n : (i+1)*n : (i+1)*n]
}

// resize gives c the layout and room for n samples, and reuses its memory. What the samples hold is undefined.
func (c *Content) resize(inputs, labels []Flat, n int) {
	c.Inputs, c.Labels = resize(c.Inputs, inputs, n), resize(c.Labels, labels, n)
	c.Weights = slices.Grow(c.Weights[:0], n)[:n]
}

func resize(have, layout []Flat, n int) []Flat {
	have = slices.Grow(have[:0], len(layout))[:len(layout)]
	for i, l := range layout {
		size, err := l.SampleBytes()
		if err != nil {
			panic("dataset: " + err.Error()) // New has checked it
		}
		have[i] = Flat{l.Type, l.Shape, slices.Grow(have[i].Bytes[:0], n*size)[:n*size]}
	}
	return have
}
