package progress

import (
	"context"
	"fmt"
	"sync"
)

// backlog is how many steps a [Detached] keeps for an output that stalls. It keeps four times as many other records.
const backlog = 1 << 13

// Detached passes records on from its own goroutine, so that an output that stalls (a pager, a terminal after Ctrl-S)
// does not delay its caller. While too many records wait, it leaves steps out, and a [Warning] says how many.
type Detached struct {
	to Observer

	mu      sync.Mutex
	waiting []Record
	missed  int
	closed  bool
	wake    chan struct{}
	over    chan struct{} // closed when everything was passed on after Close
}

// Detach returns an observer in front of another. The caller must Close it.
func Detach(to Observer) *Detached {
	d := &Detached{to: to, wake: make(chan struct{}, 1), over: make(chan struct{})}
	go d.run()
	return d
}

// Observe never blocks.
func (d *Detached) Observe(r Record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := 4 * backlog
	if _, ok := r.Event.(Step); ok {
		limit = backlog
	}
	switch {
	case d.closed:
		return
	case len(d.waiting) >= limit:
		d.missed++
		return
	case d.missed > 0:
		d.waiting = append(d.waiting, Record{r.Time, Warning{fmt.Sprintf("%d events are left out here: their reader "+
			"stalled; metrics.jsonl has every step", d.missed)}})
		d.missed = 0
	}
	d.waiting = append(d.waiting, r)
	d.signal()
}

func (d *Detached) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

func (d *Detached) run() {
	defer close(d.over)
	for {
		d.mu.Lock()
		batch, closed := d.waiting, d.closed
		d.waiting = nil
		d.mu.Unlock()
		for _, r := range batch {
			d.to.Observe(r)
		}
		if len(batch) == 0 {
			if closed {
				return
			}
			<-d.wake
		}
	}
}

// Close waits until everything is passed on. If ctx ends first, it returns false, and the goroutine stays blocked for
// as long as its output stalls. It may be called again.
func (d *Detached) Close(ctx context.Context) bool {
	d.mu.Lock()
	d.closed = true
	d.signal()
	d.mu.Unlock()
	select {
	case <-d.over:
		return true
	case <-ctx.Done():
		return false
	}
}
