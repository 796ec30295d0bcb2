// Package checkpointtest makes checkpoints for tests.
package checkpointtest

import (
	"context"

	"evenweave/checkpoint"
	"evenweave/internal/state"
)

// Save writes a checkpoint of a state into a directory and returns its path. It fills in what m says of the state, and
// the tensors where m has none.
func Save(ctx context.Context, dir string, m checkpoint.Manifest, s *state.State) (path string, err error) {
	store, err := checkpoint.Open(dir, checkpoint.Options{})
	if err != nil {
		return "", err
	}
	digest := state.NewDigest(s.Layout)
	_, _ = digest.Write(s.Image) // never fails
	m.Step, m.Epoch = s.Step, s.Ledger.Epochs()
	m.Fingerprint, m.WeightsSHA256 = s.Fingerprint().String(), digest.WeightsSHA256()
	if m.Tensors == nil {
		m.Tensors = checkpoint.Tensors(s.Layout)
	}
	of := state.Seal(s).Stream()
	return store.Save(ctx, &m, of.Bytes, of.Image)
}
