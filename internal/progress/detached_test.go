package progress

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// stalled is an output that blocks until it is released.
type stalled struct {
	release chan struct{}
	mu      sync.Mutex
	seen    []Record
}

func (s *stalled) Observe(r Record) {
	<-s.release
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, r)
}

// A stalled output delays no caller and loses only steps, which are counted; the order stays.
func TestDetachedOutlivesAStalledReader(t *testing.T) {
	out := &stalled{release: make(chan struct{})}
	d := Detach(out)
	const steps = 3 * backlog
	sent := 0
	for i := range steps {
		d.Observe(step(i + 1))
		if i%100 == 0 {
			d.Observe(evaluated(i + 1))
			sent++
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if d.Close(gone) {
		t.Error("Close reports that a stalled output got everything")
	}
	close(out.release)
	bounded, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if !d.Close(bounded) {
		t.Fatal("the kept records are not passed on")
	}
	last, got, evaluations, warned := 0, 0, 0, false
	for _, r := range out.seen {
		switch e := r.Event.(type) {
		case Step:
			if e.Step <= last {
				t.Fatalf("step %d after step %d", e.Step, last)
			}
			last = e.Step
			got++
		case Evaluation:
			evaluations++
		case Warning:
			warned = warned || strings.Contains(e.Message, "left out")
		}
	}
	if evaluations != sent || got < backlog/2 || got >= steps || !warned {
		t.Errorf("%d of %d evaluations, %d of %d steps, warned: %v", evaluations, sent, got, steps, warned)
	}
}

// An output that keeps up gets everything.
func TestDetachedPassesEverythingOn(t *testing.T) {
	out := &stalled{release: make(chan struct{})}
	close(out.release)
	d := Detach(out)
	for i := range 1000 {
		d.Observe(step(i + 1))
	}
	d.Close(t.Context())
	d.Observe(step(1001)) // after the end
	if len(out.seen) != 1000 {
		t.Errorf("%d of 1000 records", len(out.seen))
	}
}
