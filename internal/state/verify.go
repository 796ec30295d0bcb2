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

// Verify reads the encoding of a state of that layout without keeping it, and returns what is wrong with it: a
// *BlockError for each damaged block up to 100 of them, or one error for anything else. step is what its header says.
func Verify(r io.Reader, layout *Layout) (step int64, wrong []error) {
	head, err := readHead(r, layout, Any, full)
	if err == nil {
		_, err = decodeLedger(head, Any)
	}
	if err != nil {
		return 0, []error{err}
	}
	block := make([]byte, min(layout.Size, BlockSize))
	for at := int64(0); at < layout.Size && len(wrong) < maxWrong; at += BlockSize {
		part := block[:min(BlockSize, layout.Size-at)]
		err := layout.readBlock(r, at, part, head)
		if err == nil {
			err = layout.checkGaps(part, at)
		}
		if err == nil {
			continue
		}
		wrong = append(wrong, err)
		if !errors.As(err, new(*BlockError)) {
			break
		}
	}
	return int64(field(head, 2)), wrong
}
