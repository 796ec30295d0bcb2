package worker

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/cluster"
	"evenweave/internal/policy"
	"evenweave/proto"
)

// TestAFlipBeforeTheOpeningReachesNoDueState: a joiner's memory changes between the hash of its last repeated step,
// which is due, and the opening. It must offer the others' state as the due one.
func TestAFlipBeforeTheOpeningReachesNoDueState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		var joined atomic.Bool
		var flipped atomic.Int64
		c.enters = func(h *hand, generation int64) {
			if h.ID == "s" && generation == 2 {
				h.model.Weights()[3]++
				flipped.Store(h.replica.step)
			}
		}
		a := c.start("a", 1, func(b *evenweave.Batch) {
			due := b.Step >= 9 && c.job.Due(b.Step+1)
			if s := c.member("s"); due && s != nil && s.phaseNow() == policy.PhaseSpare &&
				joined.CompareAndSwap(false, true) {
				c.publish(true, "a", "s")
			}
		})
		a.model.skew = func(int64) bool { time.Sleep(5 * time.Millisecond); return false } // virtual: it applies a step
		c.publish(false, "a")
		a.until(3)
		s := c.start("s", 1, nil)
		for flipped.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		step := flipped.Load()
		a.until(step + 2)
		synctest.Wait()
		if !c.job.Due(step) {
			t.Fatalf("flipped after step %d, which is not due: the test is wrong", step)
		}
		right, err := a.replica.at(t.Context(), step)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.replica.at(t.Context(), step)
		if err != nil {
			t.Fatal(err)
		}
		if got.SHA256 != right.SHA256 {
			t.Errorf("step %d: the joiner offers %s as the due state, the other one %s", step, got.Fingerprint(),
				right.Fingerprint())
		}
		c.finish("a", "s")
	})
}

// TestAFlipUnderAHalt: while the joiner takes the last step before a halt, a bit of the other member flips. Both hold
// one state, whether the others wait for that step in one exchange or in several.
func TestAFlipUnderAHalt(t *testing.T) {
	for _, wait := range []time.Duration{2 * fetchPoll, 2 * lastStep} {
		flipUnderAHalt(t, wait)
	}
}

func flipUnderAHalt(t *testing.T, wait time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		last, flipped := false, false // of one goroutine, until the members have ended
		c.onUpdate = func(_ *hand, u *proto.Update) error {
			afterCommit(u)
			if last && len(u.Words) > 0 && !flipped {
				time.Sleep(wait) // virtual: the others exchange meanwhile
				flipped = true
				if _, err := a.replica.flip(12, 3); err != nil {
					return err
				}
				time.Sleep(wait)
			}
			last = last || u.Changing
			return nil
		}
		s := c.start("s", 1, nil)
		s.ready()
		for st, _, _ := a.replica.progress(); (st+1)%5 == 0; st, _, _ = a.replica.progress() {
			time.Sleep(time.Millisecond)
		}
		c.publish(true, "a", "s")
		c.change(func(v *cluster.View) {
			w := *v.World
			w.Halt = true
			v.World = &w
		})
		for {
			x, _ := a.report.read(0)
			y, _ := s.report.read(0)
			if x.Holding && y.Holding && x.Generation == 2 && y.Generation == 2 {
				if string(x.Held.Sha256) != string(y.Held.Sha256) {
					t.Errorf("step %d: a holds %x with fingerprint %s, s %x with %s", x.Step, x.Held.Sha256[:4],
						x.Fingerprint, y.Held.Sha256[:4], y.Fingerprint)
				}
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		c.kill()
		if !flipped {
			t.Error("nothing flipped")
		}
	})
}

// TestAFlipBeforeAFetch: a small state is fetched in the opening; a bit of its holder has flipped since its last
// step. No world is lost by it.
func TestAFlipBeforeAFetch(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.enters = func(h *hand, generation int64) {
			if h.ID == "a" && generation == 2 {
				h.model.Weights()[3]++
			}
		}
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		c.start("s", 1, nil)
		c.fresh = []string{"s"}
		c.publish(true, "a", "s")
		if got := c.finish("a", "s"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if g := c.view.World.Generation; g != 2 {
			t.Errorf("it took %d worlds", g)
		}
	})
}
