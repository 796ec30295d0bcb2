package gomlx

import (
	"fmt"
	"slices"

	"evenweave"
	"evenweave/dataset"

	"github.com/gomlx/compute/shapes"
)

// Tensors implements evenweave.Model.
func (m *Model) Tensors() []evenweave.Tensor {
	var all []evenweave.Tensor
	for _, t := range m.state {
		all = append(all, t.Tensor)
	}
	return all
}

// Read implements evenweave.Model.
func (m *Model) Read(tensor int, offset int64, p []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, err := m.part(tensor, offset, p)
	if err == nil {
		copy(p, t.bytes[offset:])
	}
	return err
}

// Write implements evenweave.Model.
func (m *Model) Write(tensor int, offset int64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.part(tensor, offset, p)
	if err != nil {
		return err
	}
	copy(t.bytes[offset:], p)
	return t.changed()
}

func (m *Model) part(i int, offset int64, p []byte) (*tensor, error) {
	if m.closed {
		return nil, errClosed
	}
	if i < 0 || i >= len(m.state) {
		return nil, fmt.Errorf("tensor %d of %d", i, len(m.state))
	}
	t := m.state[i]
	if err := t.hold(); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name, err)
	}
	if n := int64(len(t.bytes)); offset < 0 || offset > n || int64(len(p)) > n-offset {
		return nil, fmt.Errorf("%s: %d bytes from byte %d on, it has %d", t.Name, len(p), offset, n)
	}
	return t, nil
}

// rowsOf returns some of the samples of a tensor, which has n of them: the tensor's own bytes where those are all.
func rowsOf(f dataset.Flat, want shapes.Shape, rows []int, n int) ([]byte, error) {
	if t := types()[want.DType]; f.Type != t || !slices.Equal(f.Shape, want.Dimensions) {
		return nil, fmt.Errorf("samples are %s%v, Config has %s%v", f.Type, f.Shape, t, want.Dimensions)
	}
	size := want.Size() * f.Type.Size()
	if len(f.Bytes) != n*size {
		return nil, fmt.Errorf("%d bytes: expected %d samples of %d", len(f.Bytes), n, size)
	}
	if len(rows) == n {
		return f.Bytes, nil
	}
	out := make([]byte, 0, len(rows)*size)
	for _, i := range rows {
		out = append(out, f.Bytes[i*size:(i+1)*size]...)
	}
	return out, nil
}
