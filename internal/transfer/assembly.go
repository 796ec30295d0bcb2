package transfer

import (
	"context"
	"io"
	"sync"

	"evenweave/internal/state"
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

// NewAssembly returns one without blocks.
func NewAssembly(head *state.Head) *Assembly {
	n := head.Blocks()
	return &Assembly{Head: head, image: make([]byte, head.Layout.Size), have: make([]bool, n), missing: n,
		grown: make(chan struct{})}
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

// Reader gives the encoding from an offset on, and waits for blocks that have not arrived until ctx ends.
func (a *Assembly) Reader(ctx context.Context, offset int64) io.Reader {
	return &assembled{a, ctx, offset}
}

type assembled struct {
	*Assembly
	ctx context.Context
	at  int64
}

func (r *assembled) Read(p []byte) (int, error) {
	at := r.at - int64(len(r.Bytes))
	switch {
	case at < 0:
		n := copy(p, r.Bytes[r.at:])
		r.at += int64(n)
		return n, nil
	case at >= r.Layout.Size:
		return 0, io.EOF
	}
	block := int(at / state.BlockSize)
	_, end := r.Range(block)
	if err := r.await(block); err != nil {
		return 0, err
	}
	n := copy(p, r.image[at:end]) // a block that has arrived does not change
	r.at += int64(n)
	return n, nil
}

// await waits until a block has arrived.
func (r *assembled) await(block int) error {
	for {
		r.mu.Lock()
		have, grown := r.have[block], r.grown
		r.mu.Unlock()
		if have {
			return nil
		}
		select {
		case <-grown:
		case <-r.ctx.Done():
			return context.Cause(r.ctx)
		}
	}
}
