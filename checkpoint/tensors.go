package checkpoint

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"evenweave"
	"evenweave/internal/state"
)

// Tensor is a part of the state: row-major, little-endian, from byte Offset of the state's image on.
type Tensor struct {
	Name   string          `json:"name"`
	Type   evenweave.DType `json:"type"`
	Shape  []int           `json:"shape"`
	Role   string          `json:"role"`   // trained, averaged or kept
	Offset int64           `json:"offset"` // in bytes
	// Optional says of one of the tool's own tensors that a reader which does not know it may go on without.
	Optional bool `json:"optional,omitempty"`
}

// Tensors says what a state of that layout is made of.
func Tensors(l *state.Layout) []Tensor {
	all := make([]Tensor, len(l.Tensors))
	for i, t := range l.Tensors {
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		all[i] = Tensor{Name: t.Name, Type: t.Type, Shape: shape, Role: t.Role.String(), Offset: l.Offsets[i]}
	}
	return all
}

// Layout is how the state's tensors lie. It refuses what no state can have, and tensors of the tool's own that this
// program does not know, unless they are optional.
func (m Manifest) Layout() (*state.Layout, error) {
	tensors := make([]evenweave.Tensor, len(m.Tensors))
	for i, t := range m.Tensors {
		role, err := roleNamed(t.Role)
		if err != nil {
			return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
		}
		if strings.HasPrefix(t.Name, state.Reserved) && t.Name != state.Exponents && !t.Optional {
			return nil, fmt.Errorf("tensor %q: this program does not know what it is for: use the build that wrote "+
				"the checkpoint, or a newer one", t.Name)
		}
		tensors[i] = evenweave.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape, Role: role}
	}
	l, err := state.NewLayout(tensors)
	if err != nil {
		return nil, err
	}
	for i, t := range m.Tensors {
		if t.Offset != l.Offsets[i] {
			return nil, fmt.Errorf("tensor %q begins at byte %d, expected %d", t.Name, t.Offset, l.Offsets[i])
		}
	}
	if err := knownExponents(l); err != nil {
		return nil, err
	}
	return l, nil
}

// knownExponents refuses exponents of a form that this program does not know.
func knownExponents(l *state.Layout) error {
	if l.Index(state.Exponents) < 0 {
		return nil
	}
	model, err := l.OfModel()
	if err != nil {
		return err
	}
	expected, err := state.OfJob(model.Tensors)
	if err != nil {
		return err
	}
	i := expected.Index(state.Exponents)
	if i >= len(l.Tensors) || l.Tensors[i].Name != state.Exponents || l.Tensors[i].Type != expected.Tensors[i].Type ||
		!slices.Equal(l.Tensors[i].Shape, expected.Tensors[i].Shape) {
		return fmt.Errorf("tensor %q: expected one %s of shape %v after the model's: use the build that wrote the "+
			"checkpoint", state.Exponents, expected.Tensors[i].Type, expected.Tensors[i].Shape)
	}
	return nil
}

func roleNamed(name string) (evenweave.Role, error) {
	roles := []evenweave.Role{evenweave.Kept, evenweave.Trained, evenweave.Averaged}
	if i := slices.IndexFunc(roles, func(r evenweave.Role) bool { return r.String() == name }); i >= 0 {
		return roles[i], nil
	}
	return 0, fmt.Errorf("unknown role %q", name)
}

// Checkpoint is a whole checkpoint in memory.
type Checkpoint struct {
	Manifest
	State *state.State
}

// Load reads a checkpoint file from anywhere, verified to the last byte. An error is as that of Read.
func Load(ctx context.Context, path string) (c *Checkpoint, err error) {
	m, payload, err := Read(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, payload.Close()) }()
	layout, err := m.Layout()
	if err != nil {
		return nil, unusable(path, err)
	}
	s, err := state.Read(payload, layout, state.Any, nil)
	if err != nil {
		return nil, unusable(path, err)
	}
	return &Checkpoint{m, s.State}, nil
}

// Bytes is the encoding of a tensor: row-major, little-endian. It belongs to the checkpoint.
func (c *Checkpoint) Bytes(name string) ([]byte, error) {
	i := c.State.Layout.Index(name)
	if i < 0 {
		return nil, fmt.Errorf("there is no tensor %q", name)
	}
	return c.State.Tensor(i), nil
}

// Float32s is a copy of a tensor of type float32.
func (c *Checkpoint) Float32s(name string) ([]float32, error) {
	b, err := c.Bytes(name)
	if err != nil {
		return nil, err
	}
	if t := c.State.Layout.Tensors[c.State.Layout.Index(name)]; t.Type != evenweave.Float32 {
		return nil, fmt.Errorf("tensor %q has type %s", name, t.Type)
	}
	values := make([]float32, len(b)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return values, nil
}
