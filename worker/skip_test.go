package worker

import (
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

// TestSkippedStepsChangeNothing but ledger and step count, alike for every number of workers and after a kill; what is
// not finite in the loss, or too large, is skipped too.
func TestSkippedStepsChangeNothing(t *testing.T) {
	bad := map[int64]float32{4: float32(math.NaN()), 5: float32(math.Inf(-1)), 9: math.MaxFloat32}
	run := func(kill bool, ids ...string) (f state.Fingerprint, weights []float32) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			c.job.Spec.OnNonfinite = job.Skip
			for _, id := range ids {
				m := c.start(id, 1, nil).model
				m.poison = func(b *evenweave.Batch, grad []float32) {
					if x := bad[b.Step]; x != 0 && b.MicroBatch == 5 {
						grad[7] = x
					}
				}
				m.loss = func(b *evenweave.Batch) float64 {
					return map[int64]float64{13: math.Inf(1), 14: 1e10}[b.Step]
				}
			}
			c.publish(false, ids...)
			left := ids
			if kill {
				c.members[ids[0]].until(5)
				c.members[ids[0]].cancel(errKilled)
				<-c.members[ids[0]].ended
				left = ids[1:]
				c.publish(false, left...)
			}
			f = c.finish(left...)
			a := c.members[left[0]]
			weights = slices.Clone(a.model.Weights())
			if step, epochs, used := a.replica.progress(); step != steps || epochs != 2 || used != (steps-20)*32 {
				t.Errorf("step %d, epoch %d, %d samples used: expected those of all %d steps", step, epochs, used,
					steps)
			}
			s, _ := a.report.read(0)
			for _, commit := range s.Commits {
				want := commit.Step == 5 || commit.Step == 6 || commit.Step == 10 || commit.Step == 14 ||
					commit.Step == 15
				if (commit.Skipped != "") != want || math.IsNaN(commit.Loss) || math.Abs(commit.Loss) > 10 {
					t.Errorf("step %d: loss %v, skipped because %q", commit.Step, commit.Loss, commit.Skipped)
				}
			}
		})
		return f, weights
	}
	want, weights := run(false, "a")
	for _, ids := range [][]string{{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d", "e"}} {
		if f, _ := run(false, ids...); f != want {
			t.Errorf("%d workers end with %s, one with %s", len(ids), f, want)
		}
	}
	if f, _ := run(true, "a", "b", "c"); f != want {
		t.Errorf("three workers of which one dies end with %s, one with %s", f, want)
	}
	clear(bad)
	bad[4], bad[5], bad[9] = float32(math.Inf(1)), float32(math.NaN()), float32(math.NaN())
	if _, other := run(false, "a"); !slices.Equal(other, weights) {
		t.Error("what was skipped has left a trace in the weights")
	}
}

// startPoisoned starts a member whose first gradient is no number in some steps.
func (c *crew) startPoisoned(id string, in func(step int64) bool) *hand {
	h := c.start(id, 1, nil)
	h.model.poison = func(b *evenweave.Batch, grad []float32) {
		if in(b.Step) {
			grad[0] = float32(math.NaN())
		}
	}
	return h
}

// TestTooManySkipsEndTheJob alike on all ranks, although one has joined on the way and knows of none.
func TestTooManySkipsEndTheJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 100)
		c.job.Spec.OnNonfinite = job.Skip
		start := func(id string) *hand {
			return c.startPoisoned(id, func(step int64) bool { return step > 2 && step != 4 })
		}
		a := start("a")
		start("b")
		c.publish(false, "a", "b")
		a.until(8)
		start("c")
		c.publish(true, "a", "b", "c")
		got := verdict(c, "a", "b", "c")
		for _, want := range []string{"step 26:", "20 steps in a row", "weights[0] is not finite"} {
			if !strings.Contains(got, want) {
				t.Errorf("the verdict %q does not name %s", got, want)
			}
		}
	})
}

// TestSkipsAreCountedThoughMembersGo: the row does not begin again when those that have seen all of it leave.
func TestSkipsAreCountedThoughMembersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 100)
		c.job.Spec.OnNonfinite = job.Skip
		start := func(id string) *hand { return c.startPoisoned(id, func(step int64) bool { return step > 4 }) }
		a := start("a")
		c.publish(false, "a")
		a.until(10)
		b := start("b")
		c.publish(true, "a", "b")
		b.until(14)
		a.cancel(errKilled)
		<-a.ended
		c.publish(false, "b")
		if got := verdict(c, "b"); !strings.Contains(got, "step 26:") || !strings.Contains(got, "20 steps in a row") {
			t.Errorf("the verdict %q is another one than without a change of members", got)
		}
	})
}
