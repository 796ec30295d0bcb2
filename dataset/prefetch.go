package dataset

import (
	"runtime"
	"slices"
	"sync"

	"evenweave"
	"evenweave/internal/guard"
)

// Prefetched returns data that loads d ahead: of the micro-batches that the trainer announces by Prefetch it keeps at
// most batches, the newest ones, loaded or on their way. It loads on at most as many goroutines as there are
// processors; they end when nothing is left to load. What was not announced, or failed, is loaded when it is asked for.
func Prefetched(d evenweave.Data, batches int) evenweave.Data {
	return &prefetched{Data: d, shown: shown{data: d}, most: max(batches, 1),
		lanes: min(max(batches, 1), runtime.GOMAXPROCS(0))}
}

type prefetched struct {
	evenweave.Data
	shown
	most, lanes int

	mu      sync.Mutex
	ahead   []*ahead // oldest first, at most most
	running int      // goroutines, at most lanes
	spare   []any    // contents to reuse, at most most
}

// ahead is a micro-batch that a later Load may ask for.
type ahead struct {
	evenweave.Batch
	begun bool
	done  chan struct{} // closed when it is loaded; then err is set
	err   error
}

// Prefetch implements evenweave.Prefetcher.
func (p *prefetched) Prefetch(b *evenweave.Batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.find(b) >= 0 || len(p.ahead) == p.most && !p.dropOldest() {
		return
	}
	a := &ahead{Batch: *b, done: make(chan struct{})}
	a.Samples, a.Content = slices.Clone(b.Samples), nil
	p.ahead = append(p.ahead, a)
	if p.running < p.lanes {
		p.running++
		go p.work()
	}
}

// dropOldest drops the oldest micro-batch that is not being loaded, and reports whether there was one.
func (p *prefetched) dropOldest() bool {
	i := slices.IndexFunc(p.ahead, func(a *ahead) bool { return !a.begun || a.loaded() })
	if i >= 0 {
		p.keep(p.ahead[i].Content)
		p.ahead = slices.Delete(p.ahead, i, i+1)
	}
	return i >= 0
}

// work loads until nothing waits.
func (p *prefetched) work() {
	for {
		p.mu.Lock()
		i := slices.IndexFunc(p.ahead, func(a *ahead) bool { return !a.begun })
		if i < 0 {
			p.running--
			p.mu.Unlock()
			return
		}
		a := p.ahead[i]
		a.begun = true
		if n := len(p.spare); n > 0 {
			a.Content, p.spare = p.spare[n-1], p.spare[:n-1]
		}
		p.mu.Unlock()
		a.err = p.loaded(&a.Batch)
		close(a.done)
	}
}

// loaded loads a batch. A panic is an error: it comes again in the call that wants the batch.
func (p *prefetched) loaded(b *evenweave.Batch) (err error) {
	defer guard.Recover(&err)
	return p.Data.Load(b)
}

// Load implements evenweave.Data.
func (p *prefetched) Load(b *evenweave.Batch) error {
	p.mu.Lock()
	var a *ahead
	if i := p.find(b); i >= 0 {
		a = p.ahead[i]
		p.ahead = slices.Delete(p.ahead, i, i+1)
	}
	p.mu.Unlock()
	if a == nil || !a.begun { // begun changes only while a is in p.ahead
		return p.Data.Load(b)
	}
	<-a.done
	if a.err != nil {
		return p.Data.Load(b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keep(b.Content)
	b.Content = a.Content
	return nil
}

// keep keeps a content for reuse.
func (p *prefetched) keep(content any) {
	if content != nil && len(p.spare) < p.most {
		p.spare = append(p.spare, content)
	}
}

// find returns the place of the micro-batch in p.ahead, or -1. It compares all that a Load may depend on.
func (p *prefetched) find(b *evenweave.Batch) int {
	return slices.IndexFunc(p.ahead, func(a *ahead) bool {
		return a.Epoch == b.Epoch && a.Step == b.Step && a.MicroBatch == b.MicroBatch && a.Seed == b.Seed &&
			a.Key == b.Key && slices.Equal(a.Samples, b.Samples)
	})
}

func (a *ahead) loaded() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}
