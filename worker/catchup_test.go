package worker

import (
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
	"evenweave/proto"
)

// ready waits until a spare has caught up; virtual time passes.
func (h *hand) ready() {
	for {
		s, changed := h.report.read(0)
		if s.Phase == policy.PhaseSpare {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Millisecond):
		}
	}
}

// keepsUpWith says that a spare which is ready is at most one step behind.
func (h *hand) keepsUpWith(t *testing.T, other *hand) {
	t.Helper()
	newest, _, _ := other.replica.progress()
	if step, _, _ := h.replica.progress(); step < newest-1 {
		t.Errorf("it is ready with step %d, the others have %d", step, newest)
	}
}

func (l *updateLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.readers)
}

// keepsNothing once the last spare is gone.
func (l *updateLog) keepsNothing(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room.stage == made || l.room.image != nil || l.room.unused != nil {
		t.Error("it still keeps memory for a spare")
	}
	if len(l.readers) != 0 || l.copied != nil || l.updates != nil || l.logging || l.wanted || l.bytes != 0 {
		t.Errorf("it still keeps %d updates for %d readers", len(l.updates), len(l.readers))
	}
}

// TestASpareCatchesUp: a spare fetches a state and the steps since while the others train, and enters a planned world
// with the state that they leave the last one with. No member fetches a state in the opening.
func TestASpareCatchesUp(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.start("b", 2, nil)
		c.publish(false, "a", "b")
		a.until(3)
		n := c.fetches
		s := c.start("s", 2, nil)
		if st, _ := s.report.read(0); st.Phase != policy.PhaseCatchUp {
			t.Errorf("it begins in phase %q: a coordinator would use it at once", st.Phase)
		}
		s.ready()
		if c.fetches != n+1 {
			t.Errorf("%d states were fetched, want one", c.fetches-n)
		}
		s.keepsUpWith(t, a)
		c.publish(true, "a", "b", "s")
		if got := c.finish("a", "b", "s"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if c.fetches != n+1 {
			t.Errorf("%d states were fetched in the opening", c.fetches-n-1)
		}
		a.replica.updates.keepsNothing(t)
	})
}

// holderOf is the member that a spare catches up with first, of a world of two.
func (c *crew) holderOf(spare string, ids ...string) (holder *hand, others []string) {
	l := Loop{ID: spare}
	var w job.World
	for _, id := range ids {
		w.Peers = append(w.Peers, job.Peer{ID: id})
	}
	holder = c.members[l.source(&w).ID]
	for _, id := range ids {
		if id != holder.ID {
			others = append(others, id)
		}
	}
	return holder, others
}

// joins runs two members and a spare that begins to catch up at step 3, calls then when it has begun, and joins it when
// it rests. It returns the fingerprint at the end.
func (c *crew) joins(then func(holder *hand, others []string)) state.Fingerprint {
	c.catchUp = true
	a := c.start("a", 1, nil)
	c.start("b", 1, nil)
	c.publish(false, "a", "b")
	a.until(3)
	holder, others := c.holderOf("s", "a", "b")
	then(holder, others)
	s := c.start("s", 1, nil)
	s.ready()
	ids := append(c.alive[:len(c.alive):len(c.alive)], "s")
	c.publish(true, ids...)
	return c.finish(ids...)
}

// TestASpareThatCannotCatchUpJoins: the steps are too many or too large to keep, the member that it catches up with
// dies, takes another state or lies about a state or a step. The spare turns to another one, and after three tries it
// rests and fetches the state in the opening, as one of a small state does.
func TestASpareThatCannotCatchUpJoins(t *testing.T) {
	want := calm(t, 2*steps)
	for _, c := range []struct {
		name    string
		then    func(c *crew, holder *hand, others []string)
		fetches int // of states: 1 for each try that succeeds up to there, 1 in the opening; fewer if it is negative
	}{
		{"no step is kept", func(c *crew, _ *hand, _ []string) {
			for _, h := range c.members {
				h.replica.updates.most = 1 // a spare that is quick enough takes a step before it is committed
			}
		}, -4},
		{"the holder dies", func(c *crew, holder *hand, others []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && len(u.Words) > 0 {
					holder.cancel(errKilled)
					c.publish(false, others...)
					return errKilled
				}
				return nil
			}
		}, 2},
		{"the holder is too slow", func(c *crew, holder *hand, _ []string) { c.trickles = holder.ID }, 1},
		{"the holder takes another state", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && len(u.Words) > 0 {
					from.replica.updates.replace()
				}
				return nil
			}
		}, 2},
		{"a step is not what the ranks summed", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && len(u.Words) > 0 {
					u.Words[len(u.Words)/2] ^= 1
				}
				return nil
			}
		}, 2},
		{"a step does not lead to what is said", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && u.High != 0 && u.Newest != 0 {
					u.High ^= 1
				}
				return nil
			}
		}, 2},
		{"what a step has led to is not said", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && u.High != 0 && u.Newest != 0 {
					u.Step++
				}
				return nil
			}
		}, 2},
		{"it is said twice", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && u.Step > 0 && u.High == 0 {
					u.High = 1
				}
				return nil
			}
		}, 2},
		{"a step has too few words", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && len(u.Words) > 0 {
					u.Words = u.Words[:7]
				}
				return nil
			}
		}, 2},
		{"a step uses samples twice", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && len(u.Samples) > 0 {
					u.Samples[0] = u.Samples[1]
				}
				return nil
			}
		}, 2},
		{"a state is of a step that the job has not", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && u.High != 0 && u.Newest == 0 {
					u.Step = 1 << 40
				}
				return nil
			}
		}, 1},
		{"a state is not what was announced", func(c *crew, holder *hand, _ []string) {
			c.onUpdate = func(from *hand, u *proto.Update) error {
				if from == holder && u.High != 0 {
					u.High ^= 1
				}
				return nil
			}
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all := newCrew(t, 2*steps)
				if got := all.joins(func(h *hand, others []string) { c.then(all, h, others) }); got != want {
					t.Errorf("%s, want %s", got, want)
				}
				if fewer := -c.fetches; all.fetches != c.fetches && (all.fetches < 2 || all.fetches > fewer) {
					t.Errorf("%d states were fetched, want %d", all.fetches, c.fetches)
				}
				for id, h := range all.members {
					h.replica.updates.keepsNothing(t)
					if id == "s" && h.heals > 0 {
						t.Errorf("it was healed %d times, and its state was never damaged", h.heals)
					}
				}
			})
		})
	}
}

// longCrew is a crew in which "a" has begun a job that does not end within the test.
func longCrew(t *testing.T, before func(*evenweave.Batch)) (*crew, *hand) {
	c := newCrew(t, 20*steps)
	c.catchUp = true
	c.job.Spec.Epochs, c.job.Spec.Steps = 1000, 20000
	c.view.Job = &c.job
	a := c.start("a", 1, before)
	c.publish(false, "a")
	a.until(1)
	return c, a
}

// slowly takes a second a micro-batch, so that few steps are computed in virtual minutes.
func slowly(*evenweave.Batch) { time.Sleep(time.Second) }

// TestCatchingUpEnds: it may take long while something arrives. A member that sends signs of life and nothing else, or
// worlds that follow one another, do not keep a spare from its place.
func TestCatchingUpEnds(t *testing.T) {
	for name, c := range map[string]struct {
		then   func(c *crew)
		within time.Duration
		state  bool // that it has at the end
	}{
		"a large state": {func(c *crew) { c.large = 3 * catchUpQuiet }, 4 * catchUpQuiet, true},
		"no step": {func(c *crew) {
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				if u.Newest != math.MaxInt64 && (u.Newest != 0 || u.High == 0) { // all but the head of the state
					*u = proto.Update{Newest: math.MaxInt64, Generation: u.Generation}
				}
				return nil
			}
		}, (catchUpTries + 1) * catchUpQuiet, true},
		"no state": {func(c *crew) {
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				if u.High != 0 {
					u.High, u.Low = 0, 0
				}
				return nil
			}
		}, catchUpTries * (catchUpCopy + 2*catchUpQuiet), false},
		"no state in any world": {func(c *crew) {
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				time.Sleep(time.Second) // virtual
				c.publish(true, "a")
				return errKilled
			}
		}, catchUpQuiet, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				all, _ := longCrew(t, slowly)
				c.then(all)
				s := all.start("s", 1, slowly)
				for began := time.Now(); time.Since(began) < c.within && s.phaseNow() != policy.PhaseSpare; {
					time.Sleep(time.Second)
				}
				step, _, _ := s.replica.progress()
				if phase := s.phaseNow(); phase != policy.PhaseSpare || (step > 0) != c.state {
					t.Errorf("it has the state of step %d and is in phase %q", step, phase)
				}
				all.kill()
			})
		})
	}
}

// TestASpareCatchesUpWithAnExtendedJob that was shorter when it began.
func TestASpareCatchesUpWithAnExtendedJob(t *testing.T) {
	want := calm(t, 2*steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 2*steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(steps + 1)
		c.job.Spec.Steps = steps
		s := c.start("s", 1, nil)
		c.job.Spec.Steps = 2 * steps
		s.ready()
		c.publish(true, "a", "s")
		if got := c.finish("a", "s"); got != want || c.fetches != 1 {
			t.Errorf("%s after %d fetches, want %s after one", got, c.fetches, want)
		}
	})
}

// TestACaughtUpSpareWaitsForOthers: it has all that it needs, and says in an opening that another one holds up no more
// that it fetches.
func TestACaughtUpSpareWaitsForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.joins(func(*hand, []string) {
			c.onUpdate = func(_ *hand, u *proto.Update) error {
				if u.Changing {
					c.slow(20 * time.Second) // more than a fetch without progress may take
				}
				return nil
			}
			c.catchUp = false
			c.start("late", 1, nil)
			c.alive = append(c.alive[:len(c.alive):len(c.alive)], "late")
			c.catchUp = true
		})
		if g := c.view.World.Generation; g != 2 || c.fetches != 2 {
			t.Errorf("%d worlds and %d fetches, want two of each", g, c.fetches)
		}
	})
}

// TestASpareThatIsNotUsedStops: what others keep for it has an end.
func TestASpareThatIsNotUsedStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, a := longCrew(t, nil)
		s := c.start("s", 1, nil)
		s.ready()
		time.Sleep(catchUpStays - time.Second) // virtual
		if n := a.replica.updates.count(); n != 1 {
			t.Errorf("%d readers, want one", n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		a.replica.updates.keepsNothing(t)
		c.kill()
	})
}

// TestSparesShareOneCopy of a state. More of them than a bound wait until the others are in the world.
func TestSparesShareOneCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		c.job.Spec.Epochs, c.job.Spec.Steps = 1000, 20000
		c.view.Job = &c.job
		var mu sync.Mutex
		states := map[int64]int{}
		c.onUpdate = func(_ *hand, u *proto.Update) error {
			mu.Lock()
			defer mu.Unlock()
			if u.High != 0 && u.Newest == 0 {
				states[u.Step]++
			}
			return nil
		}
		ids := []string{"a"}
		a := c.start("a", 1, nil)
		c.publish(false, ids...)
		a.until(1)
		for _, id := range []string{"s", "t", "u", "v", "w"} {
			c.start(id, 1, nil)
			synctest.Wait()
			ids = append(ids, id)
		}
		for _, id := range ids[1 : 1+maxReaders] {
			c.members[id].ready()
		}
		time.Sleep(3 * catchUpPause) // virtual
		mu.Lock()
		if n := a.replica.updates.count(); len(states) != 1 || n != maxReaders {
			t.Errorf("copies of steps %v for %d readers", states, n)
		}
		mu.Unlock()
		w := c.members["w"]
		if s, _ := w.report.read(0); s.Phase != policy.PhaseCatchUp {
			t.Errorf("the last one is in phase %q: a coordinator would use it at once", s.Phase)
		}
		c.publish(true, ids[:1+maxReaders]...)
		w.ready()
		c.publish(true, ids...)
		next, _, _ := a.replica.progress()
		w.until(next + 5)
		if c.fetches != maxReaders+1 {
			t.Errorf("%d states were fetched, want one each", c.fetches)
		}
		c.kill()
	})
}

// TestACaughtUpStateIsOneMembersWord: it counts in no world before others have the same. If they are all gone, the
// checkpoint is loaded.
func TestACaughtUpStateIsOneMembersWord(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		s := c.start("s", 1, nil)
		s.ready()
		a.cancel(errKilled)
		<-a.ended
		before := c.restores
		c.publish(false, "s")
		if got := c.finish("s"); got != want || c.restores != before+1 || s.heals != 0 {
			t.Errorf("%s after %d loads of a checkpoint and %d heals, want %s after one", got, c.restores-before,
				s.heals,
				want)
		}
	})
}

// TestASpareIsUsedAtOnce: a world does not wait until the state has arrived. The spare fetches the one that is chosen.
func TestASpareIsUsedAtOnce(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		c.large = 30 * time.Second // virtual
		s := c.start("s", 1, nil)
		for a.replica.updates.count() == 0 {
			time.Sleep(time.Millisecond)
		}
		a.until(5)
		c.publish(true, "a", "s")
		for st := new(proto.Status); st.Generation != 2; st, _ = s.report.read(0) {
			time.Sleep(time.Millisecond) // virtual
		}
		synctest.Wait()
		a.replica.updates.keepsNothing(t)
		if got := c.finish("a", "s"); got != want || c.fetches != 1 {
			t.Errorf("%s after %d fetches, want %s after one", got, c.fetches, want)
		}
	})
}
