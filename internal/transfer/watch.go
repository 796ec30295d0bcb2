package transfer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	errQuiet = errors.New("no block has arrived for too long")
	// ErrSlow says that blocks arrive, and fewer than Pace asks for.
	ErrSlow = errors.New("the blocks arrive too slowly")
)

const watchTicks = 20 // of Quiet

// watch ends a download whose sources bring nothing, or too little. It counts the ticks that find it waiting for a
// source and reads no clock: a pause of this process is one tick, and what the reader takes its time for is none.
type watch struct {
	quiet, pace time.Duration
	end         context.CancelCauseFunc

	mu      sync.Mutex
	ticker  *time.Timer
	waiting bool
	silent  time.Duration // waited since the last block
	waited  time.Duration
	blocks  int // that have arrived
}

// newWatch begins to watch a download, until ctx ends; end ends ctx.
func newWatch(ctx context.Context, d Download, end context.CancelCauseFunc) *watch {
	w := &watch{quiet: d.Quiet, pace: d.Pace, end: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticker = time.AfterFunc(w.tick(), func() { w.count(ctx) })
	return w
}

func (w *watch) tick() time.Duration { return w.quiet / watchTicks }

func (w *watch) count(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting {
		w.silent += w.tick()
		w.waited += w.tick()
	}
	switch {
	case ctx.Err() != nil:
	case w.silent > w.quiet:
		w.end(errQuiet)
	case w.pace > 0 && w.waited > w.quiet+time.Duration(w.blocks)*w.pace:
		w.end(fmt.Errorf("%w: %d in %v, expected one in %v or less", ErrSlow, w.blocks, w.waited, w.pace))
	default:
		w.ticker.Reset(w.tick())
	}
}

// wait says whether the download waits for a source from now on.
func (w *watch) wait(waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting, w.silent = waiting, 0
}

// arrived says that a block has come.
func (w *watch) arrived() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = 0
	w.blocks++
}
