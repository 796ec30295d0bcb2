package gomlx

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/gomlx/backend"
	"evenweave/internal/guard"
)

// Load opens a model with the weights of a checkpoint, for a program that predicts. path is a checkpoint's file, or a
// run directory, whose newest valid one is taken; slog's default logger is given those that are newer and damaged. Of
// config, Model, Inputs, Params and Spec are enough; Evaluate needs Loss, Labels and Metrics too. What only training
// needs is not read. The model computes on XLA, where it is there.
func Load(ctx context.Context, path string, config Config) (_ *Model, err error) {
	function, err := config.signature()
	switch {
	case err != nil:
		return nil, err
	case len(config.Inputs) == 0:
		return nil, errNoInputs
	}
	if path, err = checkpoint.Find(ctx, path, func(e *checkpoint.DamagedError) {
		slog.Warn("damaged checkpoint skipped", "err", e)
	}); err != nil {
		return nil, err
	}
	c, err := checkpoint.Load(ctx, path)
	if err != nil {
		return nil, err
	}
	var spec struct {
		MicroBatch int `json:"micro_batch"`
	}
	if err := json.Unmarshal(c.Spec, &spec); err != nil {
		return nil, fmt.Errorf("%s: spec: %w", path, err)
	}
	device, _, _, err := backend.Open("auto")
	if err != nil {
		return nil, err
	}
	m := unopened(evenweave.Setup{Context: ctx, MicroBatch: max(spec.MicroBatch, 1), EvaluateOnly: true,
		Log: slog.New(slog.DiscardHandler)}, config, function, device)
	if err := errors.Join(m.openAlone(), m.read(c)); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), m.Close())
	}
	return m, nil
}

// openAlone lays out the state of the model's own variables, without what trains them.
func (m *Model) openAlone() (err error) {
	m.building.Lock()
	defer m.building.Unlock()
	if m.builder, err = m.newBuilder(0); err != nil {
		return err
	}
	variables, err := m.builder.alone()
	if err != nil {
		return err
	}
	m.layers = layersOf(&m.config, variables)
	return m.layOut(variables)
}

// alone are the variables that predictions use.
func (b *builder) alone() (all []*variable, err error) {
	defer guard.RecoverThrown(&err, "building the predictions")
	f := b.predict("predictions", 1, false)
	defer f.graph.Finalize()
	for v := range b.store.IterVariables() {
		if !v.InUseByGraph(f.graph) || v.Path() == generatorPath() {
			continue
		}
		role := evenweave.Kept
		if v.Trainable {
			role = evenweave.Trained
		}
		all = append(all, newVariable(v, role))
	}
	return all, nil
}

// read takes the values of a checkpoint's tensors.
func (m *Model) read(c *checkpoint.Checkpoint) error {
	for _, t := range m.state {
		i := slices.IndexFunc(c.Tensors, func(held checkpoint.Tensor) bool { return held.Name == t.Name })
		if i < 0 {
			return fmt.Errorf("it has no tensor %s, which the model has: give Config the model and parameters that "+
				"were trained", t.Name)
		}
		held := c.Tensors[i]
		if held.Type != t.Type || !slices.Equal(held.Shape, t.Shape) {
			return fmt.Errorf("its tensor %s is %s%v, the model's %s%v: give Config the parameters that were trained",
				t.Name, held.Type, held.Shape, t.Type, t.Shape)
		}
		bytes, err := c.Bytes(t.Name)
		if err != nil {
			return err
		}
		if err := t.hold(); err != nil {
			return fmt.Errorf("%s: %w", t.Name, err)
		}
		copy(t.bytes, bytes)
		if err := t.changed(); err != nil {
			return err
		}
	}
	return nil
}
