package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"evenweave/internal/state"
)

// HashError says that the SHA-256 of a file, which covers all but the tensors, is not the one in it.
type HashError struct{ Found, Expected []byte }

func (e *HashError) Error() string {
	return fmt.Sprintf("SHA-256 of what is before and after the tensors is %x, expected %x", e.Found, e.Expected)
}

// BlockError names a damaged block of the tensors.
type BlockError = state.BlockError

// Peek reads the manifest of a checkpoint file and its length. It hashes nothing: what it returns may be damaged. The
// error is as that of Read.
func Peek(path string) (m Manifest, size int64, err error) {
	f, err := OS{}.Open(path)
	if err != nil {
		return m, 0, unusable(path, err)
	}
	defer f.Close()
	e, err := unwrap(f)
	if err == nil {
		m, err = e.manifest()
	}
	if err != nil {
		return m, 0, unusable(path, err)
	}
	return m, int64(len(e.head)) + e.payload + trailerSize, nil
}

// Verify reads a checkpoint file wholly and checks all that can be checked without the task: hashes, lengths, that the
// payload is the state that the manifest describes, and that the name is its own. It keeps no more than a block in
// memory. The error is as that of Read; for each damaged block it wraps a *BlockError.
func Verify(ctx context.Context, path string) (Manifest, error) {
	f, err := OS{}.Open(path)
	if err != nil {
		return Manifest{}, unusable(path, err)
	}
	defer f.Close()
	m, _, err := verify(ctx, f)
	if err == nil {
		err = m.named(path)
	}
	if err != nil {
		if ctx.Err() != nil {
			return m, context.Cause(ctx)
		}
		return m, unusable(path, err)
	}
	return m, nil
}

// named finds a file that was given another checkpoint's name; other names are free.
func (m Manifest) named(path string) error {
	step, term, ok := parseName(filepath.Base(path))
	if ok && (step != m.Step || term != m.Term) {
		return fmt.Errorf("it holds step %d of term %d: it was renamed", m.Step, m.Term)
	}
	return nil
}

// holds checks a payload against the manifest, and each block of its tensors, the image, against the hashes before it.
func (m Manifest) holds(payload io.Reader, image int64) error {
	layout, err := m.Layout()
	if err != nil {
		return err
	}
	if image != layout.Size {
		return fmt.Errorf("the hash covers all but %d bytes of the payload, expected %d: those of the tensors", image,
			layout.Size)
	}
	found, wrong := state.Verify(payload, layout)
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	if err := m.describes(found); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, payload); n > 0 || err != nil {
		return errors.Join(err, fmt.Errorf("%d bytes follow the state: expected none", n))
	}
	return nil
}

// describes finds a manifest that says of its state what is not so.
func (m Manifest) describes(s state.Summary) error {
	switch f := s.Fingerprint.String(); {
	case s.Step != m.Step:
		return fmt.Errorf("its state is of step %d, its manifest of step %d", s.Step, m.Step)
	case s.Epoch != m.Epoch:
		return fmt.Errorf("its state has ended %d epochs, its manifest says %d", s.Epoch, m.Epoch)
	case f != m.Fingerprint:
		return fmt.Errorf("its state has fingerprint %s, its manifest says %.32q", f, m.Fingerprint)
	case s.WeightsSHA256 != m.WeightsSHA256:
		return fmt.Errorf("its weights have SHA-256 %s, its manifest says %.64q", s.WeightsSHA256, m.WeightsSHA256)
	}
	return nil
}

// manifest decodes and checks the manifest in a file's head.
func (e *envelope) manifest() (m Manifest, err error) {
	if err := json.Unmarshal(e.head[headerSize:], &m); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	return m, m.validate()
}
