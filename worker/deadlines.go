package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"evenweave/internal/policy"
)

const seenSteps = 33

// stepTimes turns recent step times into deadlines. The loop owns it.
type stepTimes struct {
	seen []time.Duration
	said time.Duration // the median of a member that this one has caught up with; 0: none
	size int64         // bytes of a state
}

func (p *stepTimes) saw(step time.Duration) {
	p.seen = append(p.seen, step)
	if len(p.seen) > seenSteps {
		p.seen = p.seen[1:]
	}
}

// median is that of the steps seen; 0: none was.
func (p *stepTimes) median() time.Duration {
	if len(p.seen) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(p.seen))[len(p.seen)/2]
}

// deadlines returns the deadlines of a world with this backoff. Until this member has seen enough steps, they go by
// what another one has said.
func (p *stepTimes) deadlines(backoff int) policy.Deadlines {
	if p.said > 0 && len(p.seen) < policy.EnoughSeen {
		return policy.NewDeadlines(p.said, policy.EnoughSeen, backoff, p.size)
	}
	return policy.NewDeadlines(p.median(), len(p.seen), backoff, p.size)
}

const (
	tick     = 100 * time.Millisecond
	pauseGap = time.Second
	pauseFor = 5 * time.Second // how long after a pause this process's accusations are void
)

// pauseDetector notices that this process was paused (stopped or starved): then the others only seem late. Go's
// monotonic clock runs while a process is stopped.
type pauseDetector struct {
	mu     sync.Mutex
	last   time.Time
	paused time.Time
}

// run ticks until ctx ends; the caller owns the goroutine.
func (p *pauseDetector) run(ctx context.Context) {
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

func (p *pauseDetector) beat(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.last.IsZero() && now.Sub(p.last) > pauseGap {
		p.paused = now
	}
	p.last = now
}

// stalled reports whether this process was paused recently, including a pause that the ticker has not noticed yet.
func (p *pauseDetector) stalled(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.last.IsZero() && now.Sub(p.last) > pauseGap || !p.paused.IsZero() && now.Sub(p.paused) < pauseFor
}
