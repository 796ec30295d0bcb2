package worker

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// TestFlippedBitIsHealed: a bit of one member's state flips; the change is found before the next commit, named, and
// healed from its peers.
func TestFlippedBitIsHealed(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		victim := c.startFlipping("b", 7)
		c.start("c", 1, nil)
		c.publish(false, "a", "b", "c")
		if got := c.finish("a", "b", "c"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		if s, _ := victim.report.read(0); s.Heals != 1 || victim.heals != 1 ||
			!strings.Contains(s.Heal, "member b (rank 1)") {
			t.Errorf("heals %d, the observer saw %d: %q", s.Heals, victim.heals, s.Heal)
		}
	})
}

// tie runs a, which has started, and b to the end. One update of b goes wrong; both must go back to the checkpoint.
func tie(t *testing.T, c *crew, at int64, want state.Fingerprint, checkpoint string) {
	t.Helper()
	wrong := 0
	c.start("b", 1, nil).model.skew = func(step int64) bool {
		if step == at {
			wrong++
		}
		return step == at && wrong == 1
	}
	c.publish(false, "a", "b")
	if got := c.finish("a", "b"); got != want {
		t.Errorf("ends with %s, a calm run with %s", got, want)
	}
	for _, id := range []string{"a", "b"} {
		if s, _ := c.members[id].report.read(0); s.Heals != 1 || !strings.Contains(s.Heal, checkpoint) {
			t.Errorf("%s: heals %d: %q", id, s.Heals, s.Heal)
		}
	}
}

// TestTieIsReplayed: if the updates of two members differ, the right one is unknown; both go back to the last verified
// checkpoint.
func TestTieIsReplayed(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		tie(t, c, 7, want, "checkpoint of step")
	})
}

// TestAJoinerThatTrainsCounts: it has proved its state when the world opened. Of it and the one that was there before,
// the right one is unknown too.
func TestAJoinerThatTrainsCounts(t *testing.T) {
	want := calm(t, steps)
	for _, wrong := range []string{"a", "b"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			skew := func(h *hand) {
				failed := false
				h.model.skew = func(step int64) (now bool) {
					now = h.ID == wrong && step == 12 && !failed
					failed = failed || now
					return now
				}
			}
			a := c.start("a", 1, nil)
			skew(a)
			c.publish(false, "a")
			a.until(3)
			b := c.start("b", 1, nil)
			skew(b)
			c.fresh = []string{"b"}
			c.publish(true, "a", "b")
			if got := c.finish("a", "b"); got != want {
				t.Errorf("%s was wrong: ends with %s, a calm run with %s", wrong, got, want)
			}
			for _, h := range []*hand{a, b} {
				if s, _ := h.report.read(0); s.Heals != 1 || !strings.Contains(s.Heal, "checkpoint of step") {
					t.Errorf("%s was wrong: %s has %d heals: %q", wrong, h.ID, s.Heals, s.Heal)
				}
			}
		})
	}
}

// TestTieAtTheEnd: the same for the last update, which no step compares.
func TestTieAtTheEnd(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		tie(t, c, steps-1, want, "checkpoint of step")
	})
}

// TestReplicasThatNeverAgree: members whose updates always differ fail the job, with an error that lists each member's
// state; they do not replay forever.
func TestReplicasThatNeverAgree(t *testing.T) {
	for _, from := range []int64{0, 7, steps - 1} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			a, b := c.start("a", 1, nil), c.start("b", 1, nil)
			b.model.skew = func(step int64) bool { return step >= from }
			c.publish(false, "a", "b")
			if v := verdict(c, "a", "b"); !strings.Contains(v, fmt.Sprintf("step %d: replicas differ", from+1)) ||
				!strings.Contains(v, "a (rank 0) has fingerprint") ||
				!strings.Contains(v, "b (rank 1) has fingerprint") {
				t.Errorf("from step %d on: verdict %q", from, v)
			}
			for _, h := range []*hand{a, b} {
				if h.heals != maxExchanges/2 {
					t.Errorf("from step %d on: %s was healed %d times, want %d", from, h.ID, h.heals, maxExchanges/2)
				}
			}
		})
	}
}

// TestTheLastReplayCounts: a member that is right at last is not unfit, also at the end.
func TestTheLastReplayCounts(t *testing.T) {
	want := calm(t, steps)
	for _, at := range []int64{7, steps - 1} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			c.start("a", 1, nil)
			wrong := 0
			c.start("b", 1, nil).model.skew = func(step int64) bool {
				if step == at {
					wrong++
				}
				return step == at && wrong <= maxExchanges/2
			}
			c.publish(false, "a", "b")
			if got := c.finish("a", "b"); got != want || wrong != maxExchanges/2+1 {
				t.Errorf("step %d: ends with %s after %d attempts, a calm run with %s", at, got, wrong, want)
			}
		})
	}
}

// TestUnfitMemberEnds: a member whose memory changes in every step ends itself by name; the others go on.
func TestUnfitMemberEnds(t *testing.T) {
	want := calm(t, steps)
	for _, others := range []string{"", "a", "ac"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			var b *hand
			b = c.start("b", 1, func(batch *evenweave.Batch) {
				if batch.Step == 7 {
					b.model.Weights()[3] += 1
				}
			})
			healthy := strings.Split(others, "")
			for _, id := range healthy {
				c.start(id, 1, nil)
			}
			c.publish(false, append(healthy, "b")...)
			<-b.ended
			if b.err == nil || !strings.Contains(b.err.Error(),
				"member b (rank "+fmt.Sprint(len(healthy))+") is unfit") {
				t.Errorf("beside %q: b ended with %v", others, b.err)
			}
			if len(healthy) == 0 { // a new member joins
				healthy = []string{"d"}
				c.start("d", 1, nil)
			}
			c.publish(false, healthy...)
			if got := c.finish(healthy...); got != want {
				t.Errorf("beside %q: ends with %s, a calm run with %s", others, got, want)
			}
		})
	}
}

// TestTieIsReplayedFromTheNewest: a tie goes back to a checkpoint that became durable after the world was published,
// even if only one member knows it.
func TestTieIsReplayedFromTheNewest(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		durable := false
		var a *hand
		a = c.start("a", 1, func(b *evenweave.Batch) {
			if b.Step != 6 || durable {
				return
			}
			durable = true
			s, err := a.replica.at(t.Context(), 5)
			if err != nil {
				t.Error(err)
				return
			}
			c.mu.Lock()
			c.states = map[int64]*state.State{5: s.State.Clone()} // and no older one
			c.mu.Unlock()
			a.replica.acknowledge(5)
		})
		tie(t, c, 7, want, "checkpoint of step 5")
	})
}

// TestMemoryFaultIsNoticedAlone: a member whose state changed by itself knows that it is damaged. With a peer there is
// no tie; without one it goes back to the checkpoint.
func TestMemoryFaultIsNoticedAlone(t *testing.T) {
	want := calm(t, steps)
	for ids, healed := range map[string]string{"b": "checkpoint of step 0", "ab": "that of a"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			world := strings.Split(ids, "")
			c.startFlipping("b", 7)
			if len(world) == 2 {
				c.start("a", 1, nil)
			}
			c.publish(false, world...)
			if got := c.finish(world...); got != want {
				t.Errorf("%s: ends with %s, a calm run with %s", ids, got, want)
			}
			if s, _ := c.members["b"].report.read(0); s.Heals != 1 || !strings.Contains(s.Heal, healed) {
				t.Errorf("%s: heals %d: %q", ids, s.Heals, s.Heal)
			}
		})
	}
}

// TestDismissedMemberEnds: a member that a world dismisses ends with the reason; a later process with its id does not.
func TestDismissedMemberEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		b := c.start("b", 1, nil)
		c.start("a", 1, nil)
		synctest.Wait()
		c.publish(false, "a")
		c.change(func(v *cluster.View) {
			w := *v.World
			w.Dismissed = map[string]string{"b": "left out 6 times"}
			v.World = &w
		})
		<-b.ended
		if b.err == nil || !strings.Contains(b.err.Error(), "dismissed: left out 6 times") {
			t.Errorf("b ended with %v", b.err)
		}
		c.start("b", 1, nil)
		synctest.Wait()
		c.publish(true, "a", "b")
		c.finish("a", "b")
	})
}

// TestTheDurableCheckpointIsLost: members do not ask forever for a durable checkpoint that was lost: the next world
// record names an older one, and they go back to that.
func TestTheDurableCheckpointIsLost(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		var a, b *hand
		saved := func(batch *evenweave.Batch) {
			if batch.Step == 11 {
				a.replica.acknowledge(10)
				b.replica.acknowledge(10)
			}
		}
		a, b = c.start("a", 1, saved), c.start("b", 1, nil)
		wrong := 0
		b.model.skew = func(step int64) bool {
			if step == 12 {
				wrong++
			}
			return step == 12 && wrong == 1
		}
		c.publish(false, "a", "b")
		if got := c.finish("a", "b"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		if s, _ := a.report.read(0); !strings.Contains(s.Heal, "checkpoint of step 0") {
			t.Errorf("healed by %q, of two states that differ after step 13, with the checkpoint of step 10 lost",
				s.Heal)
		}
	})
}

// misled is a collective that changes its member's ledger while the ring sums: to this member alone, samples seem used
// twice.
type misled struct {
	Collective
	step   int64
	damage func()
}

func (m misled) Sum(ctx context.Context, step int64, words []int64) error {
	err := m.Collective.Sum(ctx, step, words)
	if step == m.step {
		m.damage()
	}
	return err
}

// TestALoneFailureEndsNoJob: an error that one of three members finds alone, by its own fault, breaks that world only.
// The others go on, and it is healed.
func TestALoneFailureEndsNoJob(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		a, b, liar := c.start("a", 1, nil), c.start("b", 1, nil), c.start("c", 1, nil)
		connect, damaged := liar.Connect, false
		liar.Connect = func(ctx context.Context, w job.World, rank int) (Collective, error) {
			ring, err := connect(ctx, w, rank)
			return misled{ring, 7, func() {
				if !damaged {
					damaged = true
					next := make([]int32, c.job.Spec.MicroBatch)
					schedule.NewSampler(c.job.Spec.Plan()).MicroBatch(7, 0, next)
					if err := liar.replica.ledger.Commit(0, next[:1]); err != nil {
						t.Error(err)
					}
				}
			}}, err
		}
		c.publish(false, "a", "b", "c")
		for _, h := range []*hand{a, b} { // they notice that it has gone
			for {
				s, changed := h.report.read(0)
				if s.Verdict != "" {
					t.Fatalf("%s shares the failure of one: %s", h.ID, s.Verdict)
				}
				if s.Accusation != nil && s.Accusation.Kind != policy.KindWaiting {
					break
				}
				<-changed
			}
		}
		if s, _ := a.report.read(0); s.Step != 8 {
			t.Errorf("a is at step %d, want 8, which c alone did not commit", s.Step)
		}
		c.publish(false, "a", "b", "c")
		if got := c.finish("a", "b", "c"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		if s, _ := liar.report.read(0); s.Heals != 1 {
			t.Errorf("c was healed %d times", s.Heals)
		}
	})
}

// fetchesForEver is a collective whose member says that it fetches the state, whatever it has.
type fetchesForEver struct {
	Collective
	rank int
}

func (f fetchesForEver) Sum(ctx context.Context, step int64, words []int64) error {
	if step == opening {
		time.Sleep(fetchPoll) // virtual
		mine := words[policy.SlotWords*f.rank:][:policy.SlotWords]
		mine[0], mine[1], mine[2], mine[4] = 0, 0, 0, 1
	}
	return f.Collective.Sum(ctx, step, words)
}

// TestAFetchForEverHoldsNoWorld: the others wait for a member that fetches as long as blocks arrive there, and then
// name it.
func TestAFetchForEverHoldsNoWorld(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		a, b, liar := c.start("a", 1, nil), c.start("b", 1, nil), c.start("c", 1, nil)
		connect := liar.Connect
		liar.Connect = func(ctx context.Context, w job.World, rank int) (Collective, error) {
			ring, err := connect(ctx, w, rank)
			if w.Generation > 1 || err != nil {
				return ring, err
			}
			return fetchesForEver{ring, rank}, nil
		}
		began := time.Now()
		c.publish(false, "a", "b", "c")
		named := false // by one of them at least: the other may learn of it before it sees that itself
		for _, h := range []*hand{a, b} {
			for {
				s, changed := h.report.read(0)
				if of := s.Accusation; of != nil {
					named = named || of.Kind == policy.KindProtocol && of.Suspect == "c"
					break
				}
				if time.Since(began) > time.Minute {
					t.Fatalf("%s waits for c: %v", h.ID, s)
				}
				select {
				case <-changed:
				case <-time.After(time.Second):
				}
			}
		}
		if !named {
			t.Error("neither names c")
		}
		c.publish(false, "a", "b", "c")
		if got := c.finish("a", "b", "c"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
	})
}

// TestADamagedCopyIsReplaced: a healed member does not give away a due state that was copied from a damaged one.
func TestADamagedCopyIsReplaced(t *testing.T) {
	model := example.NewSoftmax()
	j := job.Job{Spec: job.Spec{Samples: 300, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1, Steps: 20},
		CheckpointEvery: 5}
	r, err := newReplica(j, model)
	if err != nil {
		t.Fatal(err)
	}
	right := state.New(r.layout, 300)
	right.Step = 4
	if err := r.adopt(right.Clone()); err != nil {
		t.Fatal(err)
	}
	model.Weights()[3]++ // while the ring sums
	if err := r.update(0, []int32{1}, r.layout.Split(make([]float32, r.layout.Summed())), nil); err != nil {
		t.Fatal(err)
	}
	keep(r)
	right.Step, r.durable = 5, 5 // already durable, so the adopted state is not kept
	if err := r.adopt(right.Clone()); err != nil {
		t.Fatal(err)
	}
	r.verify(right.Fingerprint(), 1)
	if s, err := r.at(t.Context(), 5); err != nil || s.Fingerprint() != right.Fingerprint() {
		t.Errorf("the state of step 5 is given as %v, %v", s, err)
	}
}

// flipsMeanwhile is a model whose memory is about to change while it updates.
type flipsMeanwhile struct {
	*example.Softmax
	replica *replica
	flipped chan error
}

func (m *flipsMeanwhile) Update([][]float32, int64) error {
	go func() {
		_, err := m.replica.flip(0, 0)
		m.flipped <- err
	}()
	for range 1000 { // it may take the locks that it can
		runtime.Gosched()
	}
	return nil
}

// TestAFlipDuringAnUpdate: neither waits for the other forever.
func TestAFlipDuringAnUpdate(t *testing.T) {
	m := &flipsMeanwhile{Softmax: example.NewSoftmax(), flipped: make(chan error, 1)}
	j := job.Job{Spec: job.Spec{Samples: 300, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1, Steps: 20}}
	r, err := newReplica(j, m)
	if err != nil {
		t.Fatal(err)
	}
	m.replica = r
	if err := r.adopt(state.New(r.layout, 300)); err != nil {
		t.Fatal(err)
	}
	if err := r.update(0, []int32{1}, r.layout.Split(make([]float32, r.layout.Summed())), nil); err != nil {
		t.Fatal(err)
	}
	if err := <-m.flipped; err != nil {
		t.Error(err)
	}
}
