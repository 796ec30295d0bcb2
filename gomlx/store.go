package gomlx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"evenweave"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/model/checkpoint"
)

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
		if err := t.hold(); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
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

// Export writes the present state as a GoMLX checkpoint into a new or empty directory: GoMLX's own tools read it, and
// its trainer goes on from it. The generator's state is left out: a trainer that loaded it would train it, and use one
// dropout mask forever.
func (m *Model) Export(dir string) (err error) {
	defer guard.RecoverThrown(&err, "exporting to "+dir)
	if old, err := os.ReadDir(dir); err == nil && len(old) > 0 {
		return fmt.Errorf("%s is not empty: name a new directory", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	store, err := m.Store()
	if err != nil {
		return err
	}
	defer store.Finalize()
	handler, err := checkpoint.Build(store).Dir(dir).Done()
	if err != nil {
		return err
	}
	return handler.Save()
}

// ExportCommand is for Task.Commands: `to-gomlx DIR` writes a checkpoint's model as Export does.
func ExportCommand() evenweave.Command {
	return evenweave.Command{Name: "to-gomlx", Args: "DIR", About: "Write a GoMLX checkpoint", Checkpoint: true,
		Run: func(_ context.Context, c *evenweave.Invocation) error {
			m, ok := c.Model.(interface{ Export(dir string) error })
			if !ok {
				return fmt.Errorf("the model is a %T, which has no method Export as gomlx.Model has", c.Model)
			}
			return m.Export(c.Args[0])
		}}
}

// storeOf reads the newest of a directory of GoMLX checkpoints into a store of its own: a store that has them as its
// loader takes each variable for trainable.
func storeOf(dir string) (store *model.Store, err error) {
	defer guard.RecoverThrown(&err, "reading "+dir)
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	store = model.NewStore()
	_, err = checkpoint.Load(store).Dir(dir).Immediate().Done()
	return store, err
}
