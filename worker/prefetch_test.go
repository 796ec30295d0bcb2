package worker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/dataset"
	"evenweave/internal/example"
)

// noted are points that say what was loaded.
type noted struct {
	example.Points
	mu     sync.Mutex
	loaded map[[2]int64]chan struct{} // by step and micro-batch; closed when it is loaded
}

func (n *noted) at(step, v int64) chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.loaded[[2]int64{step, v}] == nil {
		n.loaded[[2]int64{step, v}] = make(chan struct{})
	}
	return n.loaded[[2]int64{step, v}]
}

func (n *noted) Load(b *evenweave.Batch) error {
	defer func() {
		done := n.at(b.Step, int64(b.MicroBatch))
		n.mu.Lock()
		defer n.mu.Unlock()
		select {
		case <-done:
			if b.Step > 1 { // the first step is computed again, and what waits for the second makes room for it
				panic("a micro-batch is loaded twice")
			}
		default:
			close(done)
		}
	}()
	return n.Points.Load(b)
}

// TestLoadingOverlapsComputing: no micro-batch is over before the next one is loaded, also across steps and epochs;
// each is loaded once, except those of the first two steps, and the weights are the same.
func TestLoadingOverlapsComputing(t *testing.T) {
	const steps = 13 // an epoch has 10
	want := calm(t, steps)
	for _, lanes := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			data := &noted{loaded: map[[2]int64]chan struct{}{}}
			c.data = dataset.Prefetched(data, 2*lanes)
			h := c.start("a", lanes, nil)
			micro := int64(c.job.Spec.Plan().MicroBatches())
			h.model.poison = func(b *evenweave.Batch, _ []float32) { // it computes, and is not over
				step, v := b.Step, int64(b.MicroBatch)+int64(lanes)
				if v >= micro {
					step, v = step+1, v-micro
				}
				if step == steps {
					return
				}
				select {
				case <-data.at(step, v):
				case <-time.After(time.Minute): // virtual
					t.Errorf("step %d: micro-batch %d is computed and %d of step %d is not loaded", b.Step,
						b.MicroBatch, v,
						step)
				}
			}
			c.publish(false, "a")
			if got := c.finish("a"); got != want {
				t.Errorf("%d lanes: fingerprint %s, without loading ahead %s", lanes, got, want)
			}
		})
	}
}
