package worker

import (
	"context"
	"slices"
	"sync"
	"time"
)

const (
	firstDeadline = 15 * time.Second // before any step has been seen
	floorDeadline = 2 * time.Second  // no step is judged faster than this
	openDeadline  = 5 * time.Second  // a generation opens no faster: a peer may have to fetch the state
	// Shorter than openDeadline: who cannot reach its neighbour must say so before those that wait for it accuse each other.
	connectDeadline = 4 * time.Second
	restorePause    = 200 * time.Millisecond
	stepMultiple    = 8 // of the median of the steps seen
	seenSteps       = 33
)

// patience turns the step times seen into a deadline for the next collective. Owned by the loop.
type patience struct {
	seen []time.Duration
}

func (p *patience) saw(step time.Duration) {
	p.seen = append(p.seen, step)
	if len(p.seen) > seenSteps {
		p.seen = p.seen[1:]
	}
}

// deadline is doubled for each false accusation that the world record counts.
func (p *patience) deadline(doublings int) time.Duration {
	d := firstDeadline
	if len(p.seen) > 2 {
		sorted := slices.Sorted(slices.Values(p.seen))
		d = max(floorDeadline, stepMultiple*sorted[len(sorted)/2])
	}
	return d << min(doublings, 6)
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
