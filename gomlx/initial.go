package gomlx

import (
	"fmt"

	"evenweave/internal/guard"

	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
)

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
	if from := m.config.Tuning; from.InitFrom != "" {
		return m.start(from)
	}
	return nil
}

// initial builds the graphs once more, on a store that then holds initial values.
func (m *Model) initial(seed uint64) (_ *model.Store, err error) {
	defer guard.RecoverThrown(&err, "GoMLX's initializers")
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
	if err := t.hold(); err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	if err := value.ConstFlatData(func(flat any) { copy(t.bytes, bytesOf(flat)) }); err != nil {
		return fmt.Errorf("%s: %w", t.Name, err)
	}
	return t.changed()
}
