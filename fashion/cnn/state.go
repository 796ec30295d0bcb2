package cnn

import (
	"cmp"
	"fmt"

	"evenweave"
)

// parts are the roles that each parameter's tensors have in the state, one after the other: the parameters themselves,
// then Adam's moments (for kernels that take Muon's steps, its momentum and zeros).
func parts() []string { return []string{"", "adam/m/", "adam/v/"} }

// Tensors implements evenweave.Model.
func (m *Model) Tensors() []evenweave.Tensor { return Tensors(m.classes) }

// Tensors are those of a network for a number of classes, 0: 10, in the documented order, then both moments of each.
func Tensors(classes int) []evenweave.Tensor {
	var all []evenweave.Tensor
	for i, part := range parts() {
		for _, t := range parameters(cmp.Or(classes, defaultClasses)) {
			role := evenweave.Trained
			if i > 0 {
				role = evenweave.Kept
			}
			all = append(all, evenweave.Tensor{Name: part + t.Name, Type: evenweave.Float32,
				Shape: t.Shape, Role: role})
		}
	}
	return all
}

// Init implements evenweave.Model: the same state on every backend.
func (m *Model) Init(seed uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	initialParameters(seed, m.state[:m.size()])
	clear(m.state[m.size():])
	return nil
}

// Read implements evenweave.Model. Gradients and Update read exactly this memory.
func (m *Model) Read(tensor int, offset int64, p []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	t, err := m.tensor(tensor)
	if err != nil {
		return err
	}
	return t.Read(offset, p)
}

// Write implements evenweave.Model.
func (m *Model) Write(tensor int, offset int64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.tensor(tensor)
	if err != nil {
		return err
	}
	return t.Write(offset, p)
}

// tensor is a tensor's part of the live state.
func (m *Model) tensor(i int) (evenweave.Floats, error) {
	if n := len(m.all) * len(parts()); i < 0 || i >= n {
		return nil, fmt.Errorf("tensor %d of %d", i, n)
	}
	t := m.all[i%len(m.all)]
	at := i/len(m.all)*m.size() + t.Offset
	return m.state[at : at+t.Size()], nil
}

// join finds that the slices of a gradient are one piece of memory, which the programs then use as it is: whole.
// Otherwise flat is new memory of that size.
func (m *Model) join(grads [][]float32) (flat []float32, whole bool, err error) {
	if len(grads) != len(m.all) {
		return nil, false, fmt.Errorf("a gradient of %d tensors, expected %d", len(grads), len(m.all))
	}
	for i, t := range m.all {
		if len(grads[i]) != t.Size() {
			return nil, false, fmt.Errorf("the gradient of %s has %d elements, expected %d",
				t.Name, len(grads[i]), t.Size())
		}
	}
	if cap(grads[0]) >= m.size() {
		flat, whole = grads[0][:m.size()], true
		for i, t := range m.all {
			whole = whole && &flat[t.Offset] == &grads[i][0]
		}
	}
	if !whole {
		flat = make([]float32, m.size())
	}
	return flat, whole, nil
}

// gather copies the slices of a gradient into one.
func (m *Model) gather(flat []float32, grads [][]float32) {
	for i, t := range m.all {
		copy(flat[t.Offset:], grads[i])
	}
}

// spread is the reverse of gather.
func (m *Model) spread(grads [][]float32, flat []float32) {
	for i, t := range m.all {
		copy(grads[i], flat[t.Offset:])
	}
}
