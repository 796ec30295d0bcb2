package dataset

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"evenweave"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gated is data that counts its loads, and loads when the test lets it.
type gated struct {
	evenweave.Data
	gate              chan struct{} // nil: open
	begun, loads, now atomic.Int32
	fail              atomic.Bool
	most              atomic.Int32 // loads at once
}

func (g *gated) Load(b *evenweave.Batch) error {
	g.begun.Add(1)
	for now := g.now.Add(1); ; {
		if most := g.most.Load(); most >= now || g.most.CompareAndSwap(most, now) {
			break
		}
	}
	defer g.now.Add(-1)
	if g.gate != nil {
		<-g.gate
	}
	g.loads.Add(1)
	if g.fail.Load() {
		if b.Step == panicking {
			panic("no such luck")
		}
		return errors.New("no such luck")
	}
	return g.Data.Load(b)
}

const panicking = 1000 // a step

func batch(step int64, samples ...int32) *evenweave.Batch {
	return &evenweave.Batch{Step: step, Samples: samples}
}

func announce(d evenweave.Data, b *evenweave.Batch) { d.(evenweave.Prefetcher).Prefetch(b) }

// What was announced is loaded once, before it is asked for, and is what a direct load gives.
func TestAnnouncedBatchesAreLoadedOnceAndAhead(t *testing.T) {
	whole := numbered(t, 50)
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Data: whole}
		d := Prefetched(g, 4)
		b := &evenweave.Batch{}
		for step := range int64(20) {
			next := batch(step, int32(step), int32(step+7), evenweave.Padding)
			announce(d, next)
			announce(d, next)
			synctest.Wait()
			if n := g.loads.Load(); n != int32(step)+1 {
				t.Fatalf("%d loads after announcing %d batches", n, step+1)
			}
			b.Step, b.Samples = step, next.Samples
			got, want := contentOf(t, d, b), contentOf(t, whole, batch(0, next.Samples...))
			if got[0] != want[0] || got[1] != want[1] || g.loads.Load() != int32(step)+1 {
				t.Fatalf("step %d: %d loads, %v instead of %v", step, g.loads.Load(), got, want)
			}
		}
		if n := len(d.(*prefetched).spare); n > 1 {
			t.Errorf("%d contents are kept: they are not reused", n)
		}
	})
	checkSamples(t, Prefetched(whole, 3))
}

// However much is announced, goroutines and batches are bounded, and Prefetch does not wait.
func TestLoadingAheadIsBounded(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	whole := numbered(t, 50)
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Data: whole, gate: make(chan struct{})}
		d := Prefetched(g, 5)
		for step := range int64(30) {
			announce(d, batch(step, int32(step)))
			if step == 1 {
				synctest.Wait() // these two are being loaded, and none of the later ones
			}
		}
		synctest.Wait()
		if begun := g.begun.Load(); begun != 2 {
			t.Errorf("%d loads at once, want 2", begun)
		}
		close(g.gate)
		synctest.Wait()
		// The two that were being loaded stay, and the newest of the others.
		if n := g.loads.Load(); n != 5 || g.most.Load() > 2 {
			t.Errorf("%d batches were loaded, want 5; %d at once", n, g.most.Load())
		}
		for _, step := range []int64{29, 28, 27} {
			contentOf(t, d, batch(step, int32(step)))
		}
		if n := g.loads.Load(); n != 5 {
			t.Errorf("the newest were loaded again: %d loads", n)
		}
		contentOf(t, d, batch(10, 10))
		if n := g.loads.Load(); n != 6 {
			t.Errorf("one that was dropped: %d loads, want 6", n)
		}
	})
}

// Another epoch, seed, key or place is another batch: nothing that was loaded for one is given for the other.
func TestOnlyTheSameBatchIsGiven(t *testing.T) {
	whole := numbered(t, 50)
	synctest.Test(t, func(t *testing.T) {
		for _, change := range []func(*evenweave.Batch){
			func(b *evenweave.Batch) { b.Epoch++ }, func(b *evenweave.Batch) { b.Step++ },
			func(b *evenweave.Batch) { b.MicroBatch++ }, func(b *evenweave.Batch) { b.Seed++ },
			func(b *evenweave.Batch) { b.Key++ }, func(b *evenweave.Batch) { b.Samples = []int32{4} },
		} {
			g := &gated{Data: whole}
			d := Prefetched(g, 2)
			announce(d, batch(0, 3))
			synctest.Wait()
			other := batch(0, 3)
			change(other)
			if contentOf(t, d, other); g.loads.Load() != 2 {
				t.Errorf("%+v was given for another", other)
			}
		}
	})
}

func TestAFailedLoadIsTriedAgainWhenAskedFor(t *testing.T) {
	whole := numbered(t, 50)
	synctest.Test(t, func(t *testing.T) {
		g := &gated{Data: whole}
		d := Prefetched(g, 2)
		g.fail.Store(true)
		announce(d, batch(0, 3))
		announce(d, batch(panicking, 3)) // in a goroutine that nothing else could recover
		synctest.Wait()
		if err := d.Load(batch(0, 3)); err == nil {
			t.Error("the error is lost")
		}
		g.fail.Store(false)
		contentOf(t, d, batch(panicking, 3))
	})
}
