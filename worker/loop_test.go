package worker

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"evenweave/cluster"
	"evenweave/job"
	"evenweave/proto"
	"evenweave/schedule"
	"evenweave/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const steps = 24 // over two epochs' ends: 10 steps of 32 make an epoch of 300, the last padded

// TestAnyWorldSize: the same bits for every world size and number of lanes.
func TestAnyWorldSize(t *testing.T) {
	want := calm(t, steps)
	for size := 1; size <= 8; size++ {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			var ids []string
			for i := range size {
				ids = append(ids, fmt.Sprintf("m%d", i))
				c.start(ids[i], 1+i%3, nil)
			}
			c.publish(false, ids...)
			if got := c.finish(ids...); got != want {
				t.Errorf("%d members end with %s, one with %s", size, got, want)
			}
		})
	}
}

// TestRandomWorlds: members join, leave and die at random moments; the bits do not change.
func TestRandomWorlds(t *testing.T) {
	want := calm(t, steps)
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			c := newCrew(t, steps)
			alive := []string{}
			join := func() {
				id := fmt.Sprintf("m%d", len(c.members))
				c.start(id, 1+r.IntN(2), nil)
				alive = append(alive, id)
			}
			for range 1 + r.IntN(4) {
				join()
			}
			c.publish(false, alive...)
			for range 1 + r.IntN(6) {
				time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond) // virtual
				switch what := r.IntN(3); {
				case what == 0 && len(alive) > 1: // killed: the others learn it from the broken ring
					i := r.IntN(len(alive))
					c.members[alive[i]].cancel(errKilled)
					alive = append(alive[:i:i], alive[i+1:]...)
					c.publish(false, alive...)
				case what == 1 && len(alive) > 1: // leaves
					i := r.IntN(len(alive))
					alive = append(alive[:i:i], alive[i+1:]...)
					c.publish(true, alive...)
				case len(alive) < 8:
					join()
					c.publish(true, alive...)
				}
			}
			if got := c.finish(alive...); got != want {
				t.Errorf("seed %d ends with %s, a calm run with %s", seed, got, want)
			}
		})
	}
}

// TestFlippedBitIsHealed: one member's state is changed behind its back; it is caught before the next commit, named, and replaced by its peers'.
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
		if s, _ := victim.report.read(0); s.Heals != 1 || victim.heals != 1 || !strings.Contains(s.Heal, "member b (rank 1)") {
			t.Errorf("heals %d, the observer saw %d: %q", s.Heals, victim.heals, s.Heal)
		}
	})
}

// tie runs a, which has been started, and b to the end, with one update of b going wrong; both must go back to the checkpoint.
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

// TestTieIsReplayed: of two members whose updates gave different states nobody can say who is right; both go back to the last verified
// checkpoint.
func TestTieIsReplayed(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		tie(t, c, 7, want, "checkpoint of step")
	})
}

// TestTieAtTheEnd: so with the last update, which no step compares.
func TestTieAtTheEnd(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		tie(t, c, steps-1, want, "checkpoint of step")
	})
}

// TestReplicasThatNeverAgree: members whose updates give different states again and again fail the job, with an error that says who has what; they do
// not replay for ever.
func TestReplicasThatNeverAgree(t *testing.T) {
	for _, from := range []int64{0, 7, steps - 1} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			a, b := c.start("a", 1, nil), c.start("b", 1, nil)
			b.model.skew = func(step int64) bool { return step >= from }
			c.publish(false, "a", "b")
			for id, h := range map[string]*hand{"a": a, "b": b} {
				if v := h.awaitVerdict(); !strings.Contains(v, fmt.Sprintf("step %d: replicas differ", from+1)) || !strings.Contains(v, "a (rank 0) has fingerprint") ||
					!strings.Contains(v, "b (rank 1) has fingerprint") {
					t.Errorf("from step %d on: %s: verdict %q", from, id, v)
				}
				if h.heals != maxExchanges/2 {
					t.Errorf("from step %d on: %s was healed %d times, want %d", from, id, h.heals, maxExchanges/2)
				}
			}
			c.change(func(v *cluster.View) { v.Done = &job.Done{Job: c.job.UUID, Failure: "as told"} })
			c.running.Wait()
		})
	}
}

// TestWhoLeavesKeepsWhatIsDue: until it is durable. The others may die, and no coordinator may have been there to save it.
func TestWhoLeavesKeepsWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		a, b := c.start("a", 1, nil), c.start("b", 1, nil)
		c.publish(false, "a", "b")
		b.until(6)
		close(b.leaving)
		c.publish(true, "a")
		a.until(12)
		synctest.Wait()
		if s, err := b.replica.at(t.Context(), 5); err != nil || s.Step != 5 {
			t.Errorf("step 5 is due: b holds %v, %v", s, err)
		}
		select {
		case <-b.ended:
			t.Errorf("b has left with the only state of step 5: %v", b.err)
		default:
		}
		b.replica.acknowledge(5)
		<-b.ended
		if b.err != nil {
			t.Error(b.err)
		}
		c.finish("a")
	})
}

// TestWhoJoinsKeepsWhatIsDue: one that enters with a due state can save it, should those who computed it die; not one that took it from the disk.
func TestWhoJoinsKeepsWhatIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, func(b *schedule.Batch) {
			if b.Step == 4 && b.MicroBatch == 0 {
				c.publish(true, "a", "b")
			}
		})
		b := c.start("b", 1, nil)
		c.publish(false, "a")
		b.until(8)
		if due := b.replica.due(); !slices.Equal(due, []int64{5}) {
			t.Errorf("b entered with the state of step 5 and holds %v", due)
		}
		c.finish("a", "b")
	})
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		s := c.states[0].Clone()
		s.Step = 5
		c.states[5] = s
		c.publish(false, "a")
		c.change(func(v *cluster.View) { w := *v.World; w.Floor = 5; v.World = &w })
		a := c.start("a", 1, nil)
		a.until(7)
		if due := a.replica.due(); len(due) > 0 {
			t.Errorf("a took the state of step 5 from the disk and holds %v", due)
		}
		a.cancel(errKilled)
		c.running.Wait()
	})
}

// TestTheLastReplayCounts: what is right at last is not held against it, not even at the end.
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

// TestUnfitMemberEnds: one whose memory changes whenever it computes a step ends by itself, and says so; the others go on.
func TestUnfitMemberEnds(t *testing.T) {
	want := calm(t, steps)
	for _, others := range []string{"", "a", "ac"} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			var b *hand
			b = c.start("b", 1, func(batch *schedule.Batch) {
				if batch.Step == 7 {
					b.model.State()[3] += 1
				}
			})
			healthy := strings.Split(others, "")
			for _, id := range healthy {
				c.start(id, 1, nil)
			}
			c.publish(false, append(healthy, "b")...)
			<-b.ended
			if b.err == nil || !strings.Contains(b.err.Error(), "member b (rank "+fmt.Sprint(len(healthy))+") is unfit") {
				t.Errorf("beside %q: b ended with %v", others, b.err)
			}
			if len(healthy) == 0 { // somebody else comes
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

// TestTieIsReplayedFromTheNewest: what was made durable since the world was published is where it goes back to, though only one member was told.
func TestTieIsReplayedFromTheNewest(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		durable := false
		var a *hand
		a = c.start("a", 1, func(b *schedule.Batch) {
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
			c.states = map[int64]*state.State{5: s.Clone()} // and no older one
			c.mu.Unlock()
			a.replica.acknowledge(5)
		})
		tie(t, c, 7, want, "checkpoint of step 5")
	})
}

// TestMemoryFaultIsNoticedAlone: a member whose state changed by itself knows that it is the damaged one. With a peer there is no tie, without one
// it goes back to the checkpoint.
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

// verdict waits until every member has reached one and returns it.
func verdict(c *crew, ids ...string) string {
	c.t.Helper()
	text := ""
	for _, id := range ids {
		for {
			s, changed := c.members[id].report.read(0)
			if s.Verdict != "" {
				if text != "" && s.Verdict != text {
					c.t.Errorf("%s says %q, another %q", id, s.Verdict, text)
				}
				text = s.Verdict
				break
			}
			<-changed
		}
	}
	c.change(func(v *cluster.View) { v.Done = &job.Done{Job: c.job.UUID, Failure: text} })
	c.running.Wait()
	for _, id := range ids {
		if err := c.members[id].err; err == nil || !strings.Contains(err.Error(), text) {
			c.t.Errorf("%s ends with %v", id, err)
		}
	}
	return text
}

// TestNaNEndsTheJobAlike: all ranks name the same parameter, micro-batch and step.
func TestNaNEndsTheJobAlike(t *testing.T) {
	for name, poison := range map[string]float32{"NaN": float32(math.NaN()), "overflow": 1e9} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t, steps)
				for _, id := range []string{"a", "b", "c"} {
					c.start(id, 1, nil).model.poison = func(b *schedule.Batch, grad []float32) {
						if b.Step == 4 && b.MicroBatch == 5 {
							grad[7] = poison
						}
					}
				}
				c.publish(false, "a", "b", "c")
				got := verdict(c, "a", "b", "c")
				for _, want := range []string{"step 5", "micro-batch 5", c.members["a"].model.ParameterName(7)} {
					if !strings.Contains(got, want) {
						t.Errorf("the verdict %q does not name %s", got, want)
					}
				}
			})
		})
	}
}

// TestRepeatedSampleIsCaught: the ledger holds what was loaded, not what should have been.
func TestRepeatedSampleIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		first := int32(-1)
		c.start("a", 1, nil)
		c.start("b", 1, func(b *schedule.Batch) {
			if first < 0 {
				first = b.Samples[0]
			} else if b.Step == 3 {
				b.Samples[0] = first // used in the first step already
			}
		})
		c.publish(false, "a", "b")
		if got := verdict(c, "a", "b"); !strings.Contains(got, "step 4") || !strings.Contains(got, fmt.Sprint(first)) {
			t.Errorf("verdict %q, want step 4 and sample %d", got, first)
		}
	})
}

// TestHungMemberIsNamed: it blocks while its stream stands; after the deadline the others accuse it, and not each other.
func TestHungMemberIsNamed(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		awake := make(chan struct{})
		c.start("a", 1, nil)
		c.start("b", 1, func(b *schedule.Batch) {
			if b.Step == 6 {
				<-awake
			}
		})
		c.start("c", 1, nil)
		c.publish(false, "a", "b", "c")
		began := time.Now()
		var accused *proto.Accusation
		for accused == nil {
			s, changed := c.members["c"].report.read(0) // its left neighbour is b
			if accused = s.Accusation; accused == nil {
				<-changed
			}
		}
		if accused.Suspect != "b" || accused.Kind != "deadline" || accused.Paused {
			t.Errorf("c accuses %v", accused)
		}
		if waited := time.Since(began); waited > 2*floorDeadline {
			t.Errorf("the hang was named after %v; the deadline is %v", waited, floorDeadline)
		}
		c.publish(false, "a", "c")
		c.members["a"].until(9)
		close(awake) // it finds itself fenced, and joins again as a planned change
		c.publish(true, "a", "c", "b")
		if got := c.finish("a", "b", "c"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
	})
}

// TestFreshMembersRestore: all members die; new ones go on from the newest durable checkpoint, not from step 0.
func TestFreshMembersRestore(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		c.publish(false, "a")
		c.members["a"].until(12)
		durable, err := c.members["a"].replica.at(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		c.mu.Lock()
		c.states[10] = durable
		c.mu.Unlock()
		c.members["a"].cancel(errKilled)
		first := int64(-1)
		c.start("b", 1, func(b *schedule.Batch) {
			if first < 0 {
				first = b.Step
			}
		})
		c.publish(false, "b")
		c.change(func(v *cluster.View) { w := *v.World; w.Floor = 10; v.World = &w })
		if got := c.finish("b"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		if first != 10 {
			t.Errorf("the fresh member began at step %d, the newest durable checkpoint is of step 10", first)
		}
	})
}

// TestFenced: a member of a job that was replaced, or is gone, ends with an error that says so.
func TestFenced(t *testing.T) {
	for says, change := range map[string]func(*cluster.View){
		"fenced":                  func(v *cluster.View) { j := *v.Job; j.UUID = "another"; v.Job = &j },
		"is not in etcd any more": func(v *cluster.View) { v.Job, v.Revision = nil, 9 },
		"numerics differ": func(v *cluster.View) {
			j := *v.Job
			j.Numerics = "x"
			v.Job = &j
			v.Members = []job.Member{{ID: "a", Numerics: "y"}}
		},
		"the job failed: by a test": func(v *cluster.View) { v.Done = &job.Done{Failure: "by a test"} },
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			h := c.start("a", 1, nil)
			synctest.Wait()
			c.change(change)
			c.running.Wait()
			if h.err == nil || !strings.Contains(h.err.Error(), says) {
				t.Errorf("ended with %v, want an error that says %q", h.err, says)
			}
		})
	}
}
