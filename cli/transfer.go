package cli

import (
	"context"
	"fmt"
	"os"

	"evenweave"
	"evenweave/fashion/cnn"
	"evenweave/internal/state"
)

// start reads the weights of --init-from, a checkpoint file or a run directory, and puts their hash into the spec.
// about tells a person what is taken over and what stays as it is. Without --init-from weights is nil.
func (s *specFlags) start(ctx context.Context) (weights [][]byte, about []string, err error) {
	if path := s.initFrom; path != "" {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			if path, err = newestCheckpoint(ctx, path, os.Stderr); err != nil {
				return nil, nil, fmt.Errorf("--init-from: %w", err)
			}
		}
		from, err := readCheckpoint(ctx, path)
		if err != nil {
			return nil, nil, fmt.Errorf("--init-from: %w", err)
		}
		layout, err := state.NewLayout(new(cnn.Model).Tensors())
		if err != nil {
			return nil, nil, err
		}
		if !layout.Equal(from.State.Layout) {
			return nil, nil, fmt.Errorf("--init-from: %s holds other tensors than model %q has: choose a checkpoint of that model", path, modelName)
		}
		for i, t := range layout.Tensors {
			if t.Role == evenweave.Trained {
				weights = append(weights, from.State.Tensor(i))
			}
		}
		s.spec.Init = from.WeightsSHA256
		about = append(about, fmt.Sprintf("starting from the weights of %s (step %d, %s)", path, from.Step, from.WeightsSHA256))
	}
	frozen, err := cnn.Frozen(s.spec.Freeze)
	if err != nil {
		return nil, nil, usagef("--%w", err)
	}
	fixed := 0
	for _, t := range frozen {
		fixed += t.Size()
	}
	if fixed > 0 {
		about = append(about, fmt.Sprintf("frozen: %d of %d parameters, those of %s", fixed, cnn.NumParameters, s.spec.Freeze))
	}
	return weights, about, nil
}
