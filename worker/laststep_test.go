package worker

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/policy"
	"evenweave/proto"
)

// TestLongStepsAreAwaited: a step takes longer than connecting and the opening may. A spare that has caught up enters
// when the others do.
func TestLongStepsAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 8)
		slow := func(*evenweave.Batch) { time.Sleep(3 * time.Second) } // virtual: a step of two members takes 12 s
		c.catchUp = true
		a := c.start("a", 1, slow)
		c.start("b", 1, slow)
		c.publish(false, "a", "b")
		a.until(2)
		s := c.start("s", 1, slow)
		s.ready()
		c.publish(true, "a", "b", "s")
		c.finish("a", "b", "s")
		if g := c.view.World.Generation; g != 2 {
			t.Errorf("it took %d worlds to join, want two", g)
		}
	})
}

// afterCommit holds back a step's words until it is committed: what it has led to comes before them.
func afterCommit(u *proto.Update) {
	if u.Step > 0 && u.High == 0 {
		time.Sleep(time.Millisecond / 2) // virtual: others compute for longer, and apply in no time
	}
}

// TestASpareAppliesStepsWithTheOthers: it has the sum of a step as soon as they have, so that it has caught up when
// they have applied it, however long that takes.
func TestASpareAppliesStepsWithTheOthers(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		var behind []int64
		got := c.joins(func(holder *hand, _ []string) {
			holder.model.skew = func(step int64) bool {
				s := c.member("s")
				if s != nil && (s.phaseNow() == policy.PhaseSpare || s.phaseNow() == phaseWaiting) { // it has caught up
					time.Sleep(time.Second) // virtual
					has, _, _ := s.replica.progress()
					behind = append(behind, step+1-has)
				}
				return false
			}
		})
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if len(behind) == 0 || slices.Max(behind) > 0 {
			t.Errorf("while the others applied a step it was %d steps behind, want none", behind)
		}
	})
}

// TestTheLastStepIsNotAwaitedForEver: each of its words comes in time, and the world does not
// wait for all.
func TestTheLastStepIsNotAwaitedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.sips = 3 * time.Second
		c.onUpdate = func(_ *hand, u *proto.Update) error { afterCommit(u); return nil }
		var began time.Time
		c.enters = func(_ *hand, generation int64) {
			if generation > 1 && began.IsZero() {
				began = time.Now()
			}
		}
		c.joins(func(*hand, []string) {})
		if took := time.Since(began); c.view.World.Generation != 2 || c.fetches != 2 || took > 10*time.Second {
			t.Errorf("%d worlds and %d fetches, %v after the second began", c.view.World.Generation, c.fetches, took)
		}
	})
}

// TestTheLastStepArrivesSlowly: the others are in the new world already, and wait while it arrives; if it does not, the
// state is fetched.
func TestTheLastStepArrivesSlowly(t *testing.T) {
	for part, fetches := range map[time.Duration]int{3 * time.Second: 1, time.Hour: 2} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			last := false
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				afterCommit(u)
				if last = last && u.High == 0 || u.Changing; last {
					c.slow(20 * time.Second) // more than a fetch without progress may take
				}
				if last && len(u.Words) > 0 {
					time.Sleep(part) // virtual
				}
				return nil
			}
			c.joins(func(*hand, []string) {})
			if g := c.view.World.Generation; g != 2 || c.fetches != fetches {
				t.Errorf("a part takes %v: %d worlds and %d fetches, want 2 and %d", part, g, c.fetches, fetches)
			}
		})
	}
}

// TestALeaverGivesItsLastStep: a member that is left out of a world stays until a spare, which enters it, has taken the
// last step; a spare that does not read holds it up for a while only.
func TestALeaverGivesItsLastStep(t *testing.T) {
	for part, most := range map[time.Duration]time.Duration{500 * time.Millisecond: 5 * time.Second,
		time.Hour: lastWords + time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			c.catchUp = true
			last := false
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				afterCommit(u)
				if last = last && u.High == 0 || u.Changing; last && len(u.Words) > 0 {
					time.Sleep(part) // virtual
				}
				return nil
			}
			a := c.start("a", 1, nil)
			c.start("b", 1, nil)
			c.start("d", 1, nil)
			c.publish(false, "a", "b", "d")
			a.until(3)
			source, others := c.holderOf("s", "a", "b", "d")
			c.start("s", 1, nil).ready()
			n := c.fetches
			close(source.leaving)
			time.Sleep(time.Millisecond) // virtual: it asks the cluster
			c.publish(true, append(others, "s")...)
			began := time.Now()
			for over := false; !over; { // the coordinator saves the due states
				step, _, _ := source.replica.progress()
				source.replica.acknowledge(step)
				select {
				case <-source.ended:
					over = true
				case <-time.After(5 * time.Millisecond):
				}
			}
			if took := time.Since(began); source.err != nil || took > most {
				t.Errorf("parts take %v: it left after %v with %v", part, took, source.err)
			}
			c.finish(append(others, "s")...)
			if part < time.Hour && c.fetches != n {
				t.Errorf("%d states were fetched in the opening", c.fetches-n)
			}
		})
	}
}
