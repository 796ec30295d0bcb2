package transfer

import (
	"context"
	"sync"

	"evenweave/internal/state"
	"evenweave/proto"
)

// Assembly is a state of which the head is known and blocks arrive, in any order. It gives out the blocks that it has.
// It is safe for concurrent use.
type Assembly struct {
	*state.Head

	mu      sync.Mutex
	image   []byte
	have    []bool
	missing int
	grown   chan struct{} // closed, and replaced, when a block arrives
}

// newAssembly returns one without blocks, in that memory, if it is of the right size.
func newAssembly(head *state.Head, image []byte) *Assembly {
	if int64(len(image)) != head.Layout.Size {
		image = make([]byte, head.Layout.Size)
	}
	n := head.Blocks()
	return &Assembly{Head: head, image: image, have: make([]bool, n), missing: n, grown: make(chan struct{})}
}

// put takes a block that is verified. It says whether the block was missing.
func (a *Assembly) put(block int, p []byte) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.have[block] {
		return false
	}
	first, _ := a.Range(block)
	copy(a.image[first:], p)
	a.have[block] = true
	a.missing--
	close(a.grown)
	a.grown = make(chan struct{})
	return true
}

// Missing counts the blocks that have not arrived.
func (a *Assembly) Missing() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.missing
}

// Whole returns the state once no block is missing.
func (a *Assembly) Whole() *state.Sealed { return a.With(a.image) }

// Pieces are the encoding between two offsets. They wait for blocks that have not arrived until ctx ends.
func (a *Assembly) Pieces(ctx context.Context, from, to int64) proto.Pieces {
	return a.Head.Pieces(from, to, func(first, end int64) ([]byte, error) {
		if err := a.await(ctx, int(first/state.BlockSize)); err != nil {
			return nil, err
		}
		return a.image[first:end], nil // a block that has arrived does not change
	})
}

// await waits until a block has arrived.
func (a *Assembly) await(ctx context.Context, block int) error {
	for {
		a.mu.Lock()
		have, grown := a.have[block], a.grown
		a.mu.Unlock()
		if have {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
