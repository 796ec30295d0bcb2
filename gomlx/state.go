package gomlx

import (
	"fmt"
	"slices"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx/backend"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
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
	if n := int64(len(t.bytes)); offset < 0 || offset > n || int64(len(p)) > n-offset {
		return nil, fmt.Errorf("%s: %d bytes from byte %d on, it has %d", t.Name, len(p), offset, n)
	}
	return t, nil
}

// Init implements evenweave.Model: GoMLX's initializers with the seed. Their values depend on the backend, so one
// process calls it for a job.
func (m *Model) Init(seed uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return errClosed
	}
	store, err := m.initial(seed)
	if err != nil {
		return fmt.Errorf("initial values: %w", err)
	}
	for _, t := range m.state {
		v := store.GetVariable(t.path)
		if v == nil || !v.HasValue() {
			return fmt.Errorf("%s has no initial value", t.Name)
		}
		if err := t.copyFrom(v.MustValue()); err != nil {
			return err
		}
	}
	store.Finalize()
	return nil
}

// initial builds the graphs once more, on a store that then holds initial values.
func (m *Model) initial(seed uint64) (_ *model.Store, err error) {
	defer backend.RecoverInto(&err, "GoMLX's initializers")
	b := newBuilder(&m.config, m.function, m.device, seed)
	g, u, err := b.training(m.setup.MicroBatch)
	if err != nil {
		return nil, err
	}
	g.Finalize()
	u.Finalize()
	if b.store.GetVariable(generatorPath()) != nil {
		if err := b.store.ResetRNGState(); err != nil { // has no initializer
			return nil, err
		}
	}
	if v := b.store.GetVariable(lastStepPath()); v != nil && m.setup.TotalSteps > 0 {
		if err := v.SetValue(tensors.FromValue(m.setup.TotalSteps)); err != nil {
			return nil, err
		}
	}
	return b.store, b.store.InitializeVariables(m.device, nil)
}

// lastStepPath is of the variable that schedules ask for the length of training; train.Loop sets it.
func lastStepPath() string {
	return model.JoinPath(train.TrainerAbsoluteScope, train.TrainLastStepVarName)
}

func (t *tensor) copyFrom(value *tensors.Tensor) error {
	if !value.Shape().Equal(t.shape) {
		return fmt.Errorf("%s is a %s, expected %s", t.Name, value.Shape(), t.shape)
	}
	if err := value.ConstFlatData(func(flat any) { copy(t.bytes, bytesOf(flat)) }); err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	return t.changed()
}

// Store returns a GoMLX store with the hyperparameters and the present values of the variables: for a program that
// predicts or generates with graphs of its own (model.NewExec), or exports a checkpoint of GoMLX. The store is the
// caller's. The generator's state is not in it.
func (m *Model) Store() (*model.Store, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, errClosed
	}
	store := model.NewStore()
	store.SetParams(m.config.Params)
	for _, t := range m.state {
		value := tensors.FromShape(t.shape)
		if err := value.MutableFlatData(func(flat any) { copy(bytesOf(flat), t.bytes) }); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
		store.VariableWithValue(t.path, value).SetTrainable(t.Role == evenweave.Trained)
	}
	return store, nil
}

// Backend is the backend of the model, for programs that use Store. Close ends it.
func (m *Model) Backend() compute.Backend { return m.device }

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
