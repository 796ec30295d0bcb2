package dataset

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"

	"evenweave"
)

// Element is a type of Go that has a DType.
type Element interface {
	bool | uint8 | int32 | int64 | uint32 | uint64 | float32 | float64
}

// Of makes a tensor of values, sample after sample. shape is that of one sample; none: each value is a sample.
func Of[T Element](values []T, shape ...int) Flat {
	b, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic("dataset: " + err.Error()) // every Element has a fixed size
	}
	return Flat{typeOf[T](), slices.Clone(shape), b}
}

// Values are the elements of a tensor: a copy, in the order of Of. The tensor must hold T.
func Values[T Element](f Flat) []T {
	if t := typeOf[T](); f.Type != t {
		panic(fmt.Sprintf("dataset: values of type %s of a tensor of type %s", t, f.Type))
	}
	values := make([]T, len(f.Bytes)/f.Type.Size())
	if _, err := binary.Decode(f.Bytes, binary.LittleEndian, values); err != nil {
		panic("dataset: " + err.Error()) // every Element has a fixed size
	}
	return values
}

func typeOf[T Element]() evenweave.DType {
	var zero T
	switch any(zero).(type) {
	case bool:
		return evenweave.Bool
	case uint8:
		return evenweave.Uint8
	case int32:
		return evenweave.Int32
	case int64:
		return evenweave.Int64
	case uint32:
		return evenweave.Uint32
	case uint64:
		return evenweave.Uint64
	case float32:
		return evenweave.Float32
	}
	return evenweave.Float64
}

// InMemory returns data whose samples are those of the tensors, all of the same number of samples. The tensors' bytes
// are not copied: they must not change afterwards.
func InMemory(inputs, labels []Flat) (evenweave.Data, error) {
	m := &memory{inputs: slices.Clone(inputs), labels: slices.Clone(labels), samples: -1}
	h := sha256.New()
	for i, f := range slices.Concat(inputs, labels) {
		name := fmt.Sprintf("input %d", i)
		if i >= len(inputs) {
			name = fmt.Sprintf("label %d", i-len(inputs))
		}
		size, err := f.SampleBytes()
		if err != nil {
			return nil, fmt.Errorf("dataset: %s: %w", name, err)
		}
		if len(f.Bytes)%size != 0 {
			return nil, fmt.Errorf("dataset: %s has %d bytes: expected a multiple of the %d bytes of a sample (%s %v)",
				name, len(f.Bytes), size, f.Type, f.Shape)
		}
		if m.samples < 0 {
			m.samples = len(f.Bytes) / size
		}
		if n := len(f.Bytes) / size; n != m.samples {
			return nil, fmt.Errorf("dataset: %s has %d samples, input 0 has %d: expected the same number", name, n,
				m.samples)
		}
		fmt.Fprintf(h, "%s %s %v %d\n", name, f.Type, f.Shape, len(f.Bytes))
		h.Write(f.Bytes)
	}
	m.digest = hex.EncodeToString(h.Sum(nil))
	return New(m)
}

// memory is a source whose tensors are in memory.
type memory struct {
	inputs, labels []Flat
	samples        int
	digest         string
}

func (m *memory) Len() int                        { return m.samples }
func (m *memory) Digest() string                  { return m.digest }
func (m *memory) Layout() (inputs, labels []Flat) { return m.inputs, m.labels }

func (m *memory) Read(i int, inputs, labels [][]byte) (float32, error) {
	for k, f := range m.inputs {
		copy(inputs[k], f.Sample(i))
	}
	for k, f := range m.labels {
		copy(labels[k], f.Sample(i))
	}
	return 1, nil
}
