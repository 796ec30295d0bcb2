package proto

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrSilent says that nothing has come from the other process for too long.
	ErrSilent = errors.New("nothing has come for too long")
	// ErrSlow says that something comes, and less than must.
	ErrSlow = errors.New("it comes too slowly")
)

const watchTicks = 20 // of quiet

// Watch ends a call when the other process sends nothing, or too little. It counts the ticks that find the caller
// waiting and reads no clock: a pause of this process is one tick, and what the caller takes its time for is none. It
// is safe for concurrent use.
type Watch struct {
	quiet, pace time.Duration
	end         context.CancelCauseFunc

	mu      sync.Mutex
	ticker  *time.Timer
	waiting bool
	silent  time.Duration // waited since something came
	waited  time.Duration
	parts   int // that have come
}

// NewWatch watches until ctx ends, and calls end with the reason after a wait of quiet, or if parts take longer than
// one pace each and one quiet for all of them; pace 0: they may. Both end ctx.
func NewWatch(ctx context.Context, end context.CancelCauseFunc, quiet, pace time.Duration) *Watch {
	w := &Watch{quiet: quiet, pace: pace, end: end}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticker = time.AfterFunc(w.tick(), func() { w.count(ctx) })
	return w
}

func (w *Watch) tick() time.Duration { return w.quiet / watchTicks }

func (w *Watch) count(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting {
		w.silent += w.tick()
		w.waited += w.tick()
	}
	switch {
	case ctx.Err() != nil:
	case w.silent > w.quiet:
		w.end(fmt.Errorf("%w (%v)", ErrSilent, w.quiet))
	case w.pace > 0 && w.waited > w.quiet+time.Duration(w.parts)*w.pace:
		w.end(fmt.Errorf("%w (%d parts in %v, expected one in %v or less)", ErrSlow, w.parts, w.waited, w.pace))
	default:
		w.ticker.Reset(w.tick())
	}
}

// Wait says whether the caller waits for the other process from now on.
func (w *Watch) Wait(waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting, w.silent = waiting, 0
}

// Sign says that the other process is at work on the next part: the wait for it so far does not count.
func (w *Watch) Sign() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waited -= w.silent
	w.silent = 0
}

// Arrived says that a part has come.
func (w *Watch) Arrived() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = 0
	w.parts++
}
