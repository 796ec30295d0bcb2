package state

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

const maxWrong = 100 // damaged blocks that are named

// BlockError names a block of an image that is not what the table of hashes says.
type BlockError struct {
	Block, Blocks   int64  // from 1
	First, Last     int64  // bytes of the image
	Tensor          string // in which the block begins
	Found, Expected [sha256.Size]byte
	hash            string
}

func (e *BlockError) Error() string {
	return fmt.Sprintf("state: %v: block %d of %d, bytes %d to %d of the tensors, from %s on: %s is %x, "+
		"expected %x", ErrDamaged, e.Block, e.Blocks, e.First, e.Last, e.Tensor, e.hash, e.Found, e.Expected)
}

// Unwrap says that it is damage.
func (e *BlockError) Unwrap() error { return ErrDamaged }

// Summary is what a whole encoding says of its state, found in its bytes.
type Summary struct {
	Step, Epoch   int64
	Fingerprint   Fingerprint
	WeightsSHA256 string
}

// Verify reads the encoding of a state of that layout without keeping it, and returns what is wrong with it: a
// *BlockError for each damaged block up to 100 of them, or one error for anything else.
func Verify(r io.Reader, layout *Layout) (found Summary, wrong []error) {
	h, err := ReadHead(r, layout, Any, nil)
	if err != nil {
		return found, []error{err}
	}
	digest := NewDigest(layout)
	digest.Reset(h)
	block := make([]byte, min(layout.Size, BlockSize))
	for i := 0; i < h.Blocks() && len(wrong) < maxWrong; i++ {
		first, end := h.Range(i)
		err := h.ReadInOrder(r, i, block[:end-first])
		if err == nil {
			_, _ = digest.Write(block[:end-first]) // never fails
			continue
		}
		wrong = append(wrong, err)
		if !errors.As(err, new(*BlockError)) {
			break
		}
	}
	if len(wrong) > 0 {
		return found, wrong
	}
	fingerprint, err := digest.Fingerprint(h)
	if err != nil {
		return found, []error{err}
	}
	return Summary{h.Step, h.Ledger.Epochs(), fingerprint, digest.WeightsSHA256()}, nil
}
