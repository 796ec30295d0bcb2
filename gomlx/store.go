package gomlx

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"evenweave"
	"evenweave/gomlx/backend"

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
// dropout mask for ever.
func (m *Model) Export(dir string) (err error) {
	defer backend.RecoverInto(&err, "exporting to "+dir)
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

// storeOf reads the newest of a directory of GoMLX checkpoints into a store of its own: a store that has them as its
// loader takes each variable for trainable.
func storeOf(dir string) (store *model.Store, err error) {
	defer backend.RecoverInto(&err, "reading "+dir)
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	store = model.NewStore()
	_, err = checkpoint.Load(store).Dir(dir).Immediate().Done()
	return store, err
}

// HashOf is the SHA-256, in hexadecimal, of what the newest of a directory of GoMLX checkpoints holds: for an option
// that pins what Config.InitFrom names in a job's spec. "" for no directory.
func HashOf(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	store, err := storeOf(dir)
	if err != nil {
		return "", err
	}
	defer store.Finalize()
	values := map[string]*tensors.Tensor{}
	for v := range store.IterVariables() {
		if v.HasValue() {
			values[v.Path()] = v.MustValue()
		}
	}
	h := sha256.New()
	for _, path := range slices.Sorted(maps.Keys(values)) {
		fmt.Fprintf(h, "%q %s\n", path, values[path].Shape())
		if err := values[path].ConstFlatData(func(flat any) { h.Write(bytesOf(flat)) }); err != nil {
			return "", fmt.Errorf("%s: %s: %w", dir, path, err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// initFrom takes the model's own variables from a GoMLX checkpoint.
func (m *Model) initFrom(dir string) (err error) {
	store, err := storeOf(dir)
	if err != nil {
		return fmt.Errorf("Config.InitFrom: %w", err)
	}
	defer store.Finalize()
	var missing []string
	taken := 0
	for _, t := range m.state {
		if !t.own {
			continue
		}
		v := store.GetVariable(t.path)
		if v == nil || !v.HasValue() {
			missing = append(missing, t.Name)
			continue
		}
		if err := t.copyFrom(v.MustValue()); err != nil {
			return fmt.Errorf("Config.InitFrom: %s: %w", dir, err)
		}
		taken++
	}
	if taken == 0 {
		return fmt.Errorf("Config.InitFrom: %s has none of the model's variables", dir)
	}
	if len(missing) > 0 {
		m.setup.Log.Warn("not in the checkpoint, and initialized as always: " + strings.Join(missing, ", "))
	}
	return nil
}
