package gomlx

import (
	"context"
	"encoding/json"
	"path/filepath"

	"evenweave/checkpoint"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// Save writes the state of a model into a run directory, as training does, and returns the checkpoint's path.
func Save(ctx context.Context, m *Model, dir string) (string, error) {
	layout, err := state.NewLayout(m.Tensors())
	if err != nil {
		return "", err
	}
	s := state.New(layout, 1)
	if err := layout.ReadImage(m, 0, s.Image); err != nil {
		return "", err
	}
	spec, err := json.Marshal(map[string]int{"micro_batch": m.setup.MicroBatch})
	if err != nil {
		return "", err
	}
	return checkpointtest.Save(ctx, filepath.Join(dir, "checkpoints"), checkpoint.Manifest{Spec: spec}, s)
}
