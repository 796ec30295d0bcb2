package worker

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
)

// watchedRing calls first before the first exchange of an opening, and counts all of them.
type watchedRing struct {
	Collective
	exchanges *atomic.Int64
	first     func()
}

func (r *watchedRing) Sum(ctx context.Context, step int64, words []int64) error {
	if step == opening && r.exchanges.Add(1) == 1 {
		r.first()
	}
	return r.Collective.Sum(ctx, step, words)
}

// watch makes a member's rings watched ones from now on. entered is called before one is connected.
func (h *hand) watch(entered, first func()) *atomic.Int64 {
	exchanges, connect := new(atomic.Int64), h.Connect
	h.Connect = func(ctx context.Context, w job.World, rank int) (Collective, error) {
		entered()
		ring, err := connect(ctx, w, rank)
		return &watchedRing{ring, exchanges, first}, err
	}
	return exchanges
}

// joinsAt joins a spare that has caught up with others, by a world that is published while the step before a due state,
// or before another one, is computed. then gets the members before they enter it.
func (c *crew) joinsAt(due bool, others []string, then func(ids []string)) state.Fingerprint {
	c.catchUp = true
	var joined sync.Once
	ids := append(others[:len(others):len(others)], "s")
	before := func(b *evenweave.Batch) {
		s := c.member("s")
		if b.Step >= 6 && c.job.Due(b.Step+1) == due && s != nil && s.phaseNow() == policy.PhaseSpare {
			joined.Do(func() {
				then(ids)
				c.publish(true, ids...)
			})
		}
	}
	first := c.start(others[0], 1, before)
	for _, id := range others[1:] {
		c.start(id, 1, nil)
	}
	c.publish(false, others...)
	first.until(3)
	c.start("s", 1, nil)
	return c.finish(ids...)
}

// TestAJoinTakesOneExchange: all have the same state, and say so at once. Only if the joiner has to copy it, as a due
// one, the ranks go on to exchange what they hash.
func TestAJoinTakesOneExchange(t *testing.T) {
	want := calm(t, steps)
	for _, due := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			exchanges, reads := map[string]*atomic.Int64{}, map[string]*int64{}
			got := c.joinsAt(due, []string{"a", "b"}, func(ids []string) {
				for _, id := range ids {
					h, n := c.member(id), new(int64)
					exchanges[id] = h.watch(func() { *n -= h.model.reads.Load() },
						func() { *n += h.model.reads.Load() })
					reads[id] = n
				}
			})
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
			n := int64(2) // the second one is after the last step
			if due {
				n = 4
			}
			for id := range exchanges {
				if got := exchanges[id].Load(); got != n {
					t.Errorf("due %v: %s took part in %d exchanges, want %d", due, id, got, n)
				}
				if n := *reads[id]; id != "s" && n > 0 { // s may apply the last step first
					t.Errorf("due %v: %s read its state %d times before the first exchange", due, id, n)
				}
			}
		})
	}
}

// TestAFlipBeforeAWorldsFirstStep is found in that step by the member itself, and healed from the others. A spare that
// has caught up is no exception.
func TestAFlipBeforeAWorldsFirstStep(t *testing.T) {
	want := calm(t, steps)
	for _, victim := range []string{"a", "s"} {
		for _, others := range [][]string{{"a"}, {"a", "b"}} {
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t, steps)
				got := c.joinsAt(false, others, func([]string) {
					h := c.member(victim)
					h.watch(func() {}, func() { h.model.Weights()[3]++ })
				})
				if got != want {
					t.Errorf("%s of %v: %s, want %s", victim, others, got, want)
				}
				for id, h := range c.members {
					if (h.heals == 1) != (id == victim) || h.heals > 1 {
						t.Errorf("%s of %v: %s was healed %d times", victim, others, id, h.heals)
					}
				}
				if g := c.view.World.Generation; g != 2 {
					t.Errorf("%s of %v: it took %d worlds", victim, others, g)
				}
			})
		}
	}
}

// TestAFlipBeforeALoneMembersFirstStep: no other member knows what is right.
func TestAFlipBeforeALoneMembersFirstStep(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.enters = func(h *hand, generation int64) {
			if generation == 2 {
				h.model.Weights()[3]++
			}
		}
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		c.publish(true, "a")
		if got := c.finish("a"); got != want || a.heals != 1 || c.restores == 0 {
			t.Errorf("%s after %d heals and %d loads of a checkpoint, want %s", got, a.heals, c.restores, want)
		}
	})
}

// strict is a model that computes from finite weights only.
type strict struct{ *faulty }

func (m strict) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	for _, w := range m.Weights() {
		if math.IsNaN(float64(w)) {
			return evenweave.Sums{}, errors.New("a weight is not finite")
		}
	}
	return m.faulty.Gradients(b, grads)
}

// TestAFlipThatFailsAStep: what a step's computing has not survived is hashed again before the next world opens, which
// heals it.
func TestAFlipThatFailsAStep(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		var b *hand
		flipped := false
		b = c.start("b", 1, func(batch *evenweave.Batch) {
			if batch.Step == 7 && !flipped {
				flipped = true
				b.model.Weights()[3] = float32(math.NaN())
			}
		})
		b.replica.model = strict{b.model}
		c.publish(false, "a", "b")
		if got := c.finish("a", "b"); got != want || b.heals != 1 || c.view.World.Generation != 2 {
			t.Errorf("%s after %d heals in %d worlds, want %s after one in two", got, b.heals, c.view.World.Generation,
				want)
		}
	})
}
