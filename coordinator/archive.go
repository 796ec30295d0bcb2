package coordinator

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

const relinkAfter = time.Second // of checkpoint.Options: the end of a term makes the link "latest" true

// archive is the job's directory of checkpoints, which hold states of the job's layout.
type archive struct {
	*checkpoint.Store
	layout  *state.Layout
	digest  *state.Digest  // of what is written: the store writes one checkpoint at a time
	samples int            // of the training data
	keep    int            // how many of the newest are kept,
	spared  func() []int64 // and which steps beside them
	log     *slog.Logger
}

// write makes a verified state durable, block by block.
func (a *archive) write(ctx context.Context, j job.Job, term int64, s state.Stream) (checkpoint.Entry, error) {
	spec, err := json.Marshal(j.Spec)
	if err != nil {
		return checkpoint.Entry{}, err
	}
	m := checkpoint.Manifest{
		Job: j.UUID, Task: j.Spec.Task, Spec: spec, Numerics: j.Numerics,
		NumericsParts: j.NumericsParts, Step: s.Step, Epoch: s.Ledger.Epochs(),
		// known once the image is written, in as many characters
		Term: term, Fingerprint: state.Fingerprint{}.String(), WeightsSHA256: strings.Repeat("0", 2*sha256.Size),
		Tensors: checkpoint.Tensors(a.layout), Created: time.Now().UTC(), Complete: s.Step == j.Spec.TotalSteps(),
	}
	path, err := a.Save(ctx, &m, s.Bytes, func(w io.Writer) error {
		if a.digest == nil {
			a.digest = state.NewDigest(a.layout)
		}
		a.digest.Reset(s.Head) // an earlier image may have been given up
		if err := s.Image(io.MultiWriter(w, a.digest)); err != nil {
			return err
		}
		f, err := a.digest.Fingerprint(s.Head)
		m.Fingerprint, m.WeightsSHA256 = f.String(), a.digest.WeightsSHA256()
		return err
	})
	return checkpoint.Entry{Manifest: m, Path: path, Step: m.Step, Term: m.Term}, err
}

// read reads a checkpoint of this job.
func (a *archive) read(ctx context.Context, path string) (*state.Sealed, error) {
	_, payload, err := a.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	defer payload.Close()
	return state.Read(payload, a.layout, a.samples, nil)
}

// prune keeps the newest checkpoints and the spared ones, for a leader of this term.
func (a *archive) prune(ctx context.Context, term int64) {
	if _, err := a.Prune(ctx, term, a.keep, a.spared()...); err != nil && ctx.Err() == nil {
		a.log.Warn("removing old checkpoints", "err", err)
	}
}

// fits refuses a checkpoint whose tensors are not those of a state of this build.
func (a *archive) fits(e checkpoint.Entry) error {
	held, err := e.Manifest.Layout()
	switch {
	case err == nil && held.Index(state.Exponents) < 0:
		err = fmt.Errorf("it has no tensor %q: the build that wrote it, of before 27 November 2026, sums gradients in "+
			"another format and so gives other bits; go on with that build, or start another run with these weights",
			state.Exponents)
	case err == nil && !held.Equal(a.layout):
		err = fmt.Errorf("%s: use the program that wrote it", held.Other(a.layout))
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s cannot be gone on from: %w", e.Path, err)
	}
	return nil
}
