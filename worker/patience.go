package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"evenweave/internal/policy"
)

const (
	restorePause = 200 * time.Millisecond
	seenSteps    = 33
)

// patience turns the step times seen into deadlines. Owned by the loop.
type patience struct {
	seen []time.Duration
}

func (p *patience) saw(step time.Duration) {
	p.seen = append(p.seen, step)
	if len(p.seen) > seenSteps {
		p.seen = p.seen[1:]
	}
}

// deadlines of a world that is backed off so far.
func (p *patience) deadlines(backoff int) policy.Deadlines {
	median := time.Duration(0)
	if n := len(p.seen); n > 0 {
		median = slices.Sorted(slices.Values(p.seen))[n/2]
	}
	return policy.NewDeadlines(median, len(p.seen), backoff)
}

const (
	tick     = 100 * time.Millisecond
	pauseGap = time.Second
	pauseFor = 5 * time.Second // how long after a pause this process's accusations are void
)

// pulse notices that this process did not run for a while (stopped, or starved): then the others look late and are not.
// Go's monotonic clock counts while a process is stopped.
type pulse struct {
	mu     sync.Mutex
	last   time.Time
	paused time.Time
}

// run ticks until ctx ends; the caller owns the goroutine.
func (p *pulse) run(ctx context.Context) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		p.beat(time.Now())
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (p *pulse) beat(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && now.Sub(p.last) > pauseGap {
		p.paused = now
	}
	p.last = now
}

// stalled says whether this process was paused lately. It also counts a pause that the ticker has not noticed yet.
func (p *pulse) stalled(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.last.IsZero() && now.Sub(p.last) > pauseGap || !p.paused.IsZero() && now.Sub(p.paused) < pauseFor
}
