package evenweave

import "math"

// Memory is a state in this process's memory whose tensors are all of type Float32. A model that embeds a *Memory has
// Tensors, Read, Write and Close of it; Init, Gradients and Update are left to write.
type Memory struct {
	// Values holds the elements of each tensor, in row-major order: Init and Update set them, nothing replaces a slice.
	Values  []Floats
	tensors []Tensor
}

// NewMemory makes a state of tensors, those of role Trained first: all zero, and of type Float32 whatever Type says. A
// shape with a dimension below 1, or of more than 2^31-1 elements, is named when a model with it is opened.
func NewMemory(tensors ...Tensor) *Memory {
	m := &Memory{}
	for _, t := range tensors {
		t.Type = Float32
		m.tensors, m.Values = append(m.tensors, t), append(m.Values, make(Floats, roomFor(t.Shape)))
	}
	return m
}

// roomFor is how many elements a shape has, 0 for one that no model may have.
func roomFor(shape []int) int {
	n := 1
	for _, d := range shape {
		if d < 1 || d > math.MaxInt32/n {
			return 0
		}
		n *= d
	}
	return n
}

// Tensors implements Model.
func (m *Memory) Tensors() []Tensor { return m.tensors }

// Read implements Model.
func (m *Memory) Read(tensor int, offset int64, p []byte) error {
	return m.Values[tensor].Read(offset, p)
}

// Write implements Model.
func (m *Memory) Write(tensor int, offset int64, p []byte) error {
	return m.Values[tensor].Write(offset, p)
}

// Close implements Model.
func (m *Memory) Close() error { return nil }
