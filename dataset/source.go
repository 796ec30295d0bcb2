package dataset

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"evenweave"
	"evenweave/internal/guard"
)

// Source reads single samples. New makes data of it. Its methods are called by several goroutines at once.
type Source interface {
	// Len and Digest are as evenweave.Data has them.
	Len() int
	Digest() string
	// Layout gives type and shape of each tensor; Bytes stay empty.
	Layout() (inputs, labels []Flat)
	// Read writes sample i: a slice for each tensor of Layout, of the length of one sample. All bytes must be written,
	// for the slices hold another sample before. weight is 1 unless samples have weights (for package gomlx those are a
	// label of their own). The result depends on i alone.
	Read(i int, inputs, labels [][]byte) (weight float32, err error)
}

// New returns data that loads the samples of a source into a *Content. The source's layout is checked. What the source
// shows of itself (evenweave.Classed, Pictured, Located) the data do too; samples whose one input is bytes of the shape
// [height width] or [height width channels] are shown as pictures.
func New(s Source) (evenweave.Data, error) {
	inputs, labels := s.Layout()
	if len(inputs) == 0 {
		return nil, errors.New("dataset: no inputs: expected at least one tensor")
	}
	if n := s.Len(); n < 1 || n > math.MaxInt32 {
		return nil, fmt.Errorf("dataset: %d samples: expected 1 to %d", n, math.MaxInt32)
	}
	for what, layout := range map[string][]Flat{"input": inputs, "label": labels} {
		for i, l := range layout {
			if _, err := l.SampleBytes(); err != nil {
				return nil, fmt.Errorf("dataset: %s %d: %w", what, i, err)
			}
		}
	}
	return &indexed{s, shown{data: s}, inputs, labels}, nil
}

// indexed is data whose samples do not depend on each other.
type indexed struct {
	Source
	shown
	inputs, labels []Flat // the layout
}

// Load implements evenweave.Data.
func (d *indexed) Load(b *evenweave.Batch) error {
	c, _ := b.Content.(*Content)
	if c == nil {
		c = new(Content)
		b.Content = c
	}
	c.resize(d.inputs, d.labels, len(b.Samples))
	inputs, labels := make([][]byte, len(c.Inputs)), make([][]byte, len(c.Labels))
	for i, sample := range b.Samples {
		view(inputs, c.Inputs, i)
		view(labels, c.Labels, i)
		var err error
		if c.Weights[i], err = d.read(sample, inputs, labels); err != nil {
			return fmt.Errorf("sample %d: %w", sample, err)
		}
	}
	return nil
}

func view(into [][]byte, flats []Flat, i int) {
	for k, f := range flats {
		into[k] = f.Sample(i)
	}
}

// guarded is Read, whose panic is an error.
func (d *indexed) guarded(i int, inputs, labels [][]byte) (weight float32, err error) {
	defer guard.Recover(&err)
	return d.Read(i, inputs, labels)
}

func (d *indexed) read(sample int32, inputs, labels [][]byte) (float32, error) {
	switch {
	case sample == evenweave.Padding:
		for _, b := range slices.Concat(inputs, labels) {
			clear(b)
		}
		return 0, nil
	case sample < 0 || int(sample) >= d.Len():
		return 0, fmt.Errorf("there is no such sample: expected 0 to %d, or %d for padding", d.Len()-1,
			evenweave.Padding)
	}
	weight, err := d.guarded(int(sample), inputs, labels)
	if err == nil && !(weight >= 0 && weight <= math.MaxFloat32) {
		err = fmt.Errorf("weight %v: expected a finite one of at least 0", weight)
	}
	return weight, err
}
