package worker

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"evenweave"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
	"evenweave/proto"
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

// TestThousandsOfMicroBatches: a step of 4,096, for which the exponents leave fewer bits of each.
func TestThousandsOfMicroBatches(t *testing.T) {
	var want state.Fingerprint
	for size := range 3 {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, 3)
			c.job.Spec.Samples, c.job.Spec.GlobalBatch, c.job.Spec.MicroBatch = 20000, 4096, 1
			c.states[0] = state.New(layoutOf(t, example.NewSoftmax()), c.job.Spec.Samples)
			ids := []string{"a", "b", "c"}[:1+size]
			for i, id := range ids {
				c.start(id, 1+i, nil)
			}
			c.publish(false, ids...)
			if got := c.finish(ids...); want == (state.Fingerprint{}) {
				want = got
			} else if got != want {
				t.Errorf("%d members end with %s, one with %s", 1+size, got, want)
			}
			if n := c.members["a"].repeated; n != 1 {
				t.Errorf("%d steps were computed again, want the first alone", n)
			}
		})
	}
}

// TestRecordsThatAreNotUsedAreCounted: also records that come while the member trains.
func TestRecordsThatAreNotUsedAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		m := c.start("m", 1, nil)
		c.publish(false, "m")
		time.Sleep(2 * time.Millisecond) // virtual: within the first step
		c.change(func(v *cluster.View) {
			v.Skipped = []error{errors.New("no JSON")}
			v.Members = []job.Member{{ID: "m", Protocol: job.Protocol}, {ID: "old", Protocol: job.Protocol - 1}}
		})
		synctest.Wait()
		if m.skipped != 1 || m.otherProtocol != 1 {
			t.Errorf("%d records and %d members were seen, want one each", m.skipped, m.otherProtocol)
		}
		c.finish("m")
	})
}

// TestRandomWorlds: members join, leave and die at random moments; the bits do not change. In every other world joiners
// begin to catch up first.
func TestRandomWorlds(t *testing.T) {
	want := calm(t, steps)
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			c := newCrew(t, steps)
			c.catchUp = seed%2 == 1
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
				case what == 0 && len(alive) > 1: // killed: the others see the ring break
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

// TestALeaverKeepsDueStates until they are durable: the others may die before a coordinator has saved them.
func TestALeaverKeepsDueStates(t *testing.T) {
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

// TestALeaverWaitsUntilItsRequestIsKnown: a member that was cut off sees a world without it, while a newer world may
// count on its state.
func TestALeaverWaitsUntilItsRequestIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		a, b := c.start("a", 1, nil), c.start("b", 1, nil)
		c.publish(false, "a", "b")
		b.until(3)
		c.publish(true, "a")
		a.until(8)
		synctest.Wait()
		c.cutOff = true
		close(b.leaving)
		synctest.Wait()
		select {
		case <-b.ended:
			t.Errorf("b has left, and no coordinator can know it: %v", b.err)
		default:
		}
		c.cutOff = false
		c.request("b")
		<-b.ended
		if b.err != nil {
			t.Error(b.err)
		}
		c.finish("a")
	})
}

// TestHoldingIsReportedAfterDueStates: a coordinator that knows only the last state saves it and skips the due ones,
// which are then never evaluated.
func TestHoldingIsReportedAfterDueStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		hashing := make(chan struct{})
		var a *hand
		a = c.start("a", 1, func(b *evenweave.Batch) {
			if b.Step == steps-1 && b.MicroBatch == 7 {
				a.replica.sealing.Lock() // the hash of the last due state takes long
				close(hashing)
			}
		})
		c.publish(false, "a")
		<-hashing
		for range 1000 { // the loop may go on as far as it does
			runtime.Gosched()
		}
		s, _ := a.report.read(0)
		if s.Holding {
			t.Errorf("it holds step %d and reports due states %v", s.Step, s.Due)
		}
		a.replica.sealing.Unlock()
		c.finish("a")
	})
}

// TestAJoinerKeepsDueStates: a member that enters with a due state keeps it, in case the members that computed it die;
// not if it came from the disk.
func TestAJoinerKeepsDueStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, func(b *evenweave.Batch) {
			if b.Step == 4 && b.MicroBatch == 0 {
				c.publish(true, "a", "b")
			}
		})
		b := c.start("b", 1, nil)
		c.publish(false, "a")
		b.until(8)
		if due := b.replica.due(); len(due) != 1 || due[0].Step != 5 {
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
		c.change(func(v *cluster.View) { w := *v.World; w.DurableStep = 5; v.World = &w })
		a := c.start("a", 1, nil)
		a.until(7)
		if due := a.replica.due(); len(due) > 0 {
			t.Errorf("a took the state of step 5 from the disk and holds %v", due)
		}
		a.cancel(errKilled)
		c.running.Wait()
	})
}

// verdict waits until every member has reported one and returns it.
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

// TestNaNEndsTheJobAlike: all ranks name the same parameter, micro-batch and step. A gradient that is too large after
// all repeats is of no micro-batch alone.
func TestNaNEndsTheJobAlike(t *testing.T) {
	for name, poison := range map[string]float32{"NaN": float32(math.NaN()), "overflow": math.MaxFloat32} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t, steps)
				for _, id := range []string{"a", "b", "c"} {
					c.start(id, 1, nil).model.poison = func(b *evenweave.Batch, grad []float32) {
						if b.Step == 4 && b.MicroBatch == 5 {
							grad[7] = poison
						}
					}
				}
				c.publish(false, "a", "b", "c")
				got, want := verdict(c, "a", "b", "c"), []string{"step 5", "micro-batch 5", "weights[7]"}
				if name == "overflow" {
					want = []string{"step 5", "weights[0]", "3 times"}
				}
				for _, want := range want {
					if !strings.Contains(got, want) {
						t.Errorf("the verdict %q does not name %s", got, want)
					}
				}
			})
		})
	}
}

// TestRepeatedStepsChangeNothing: gradients that outgrow their exponents make all ranks compute the step again, alike
// for every number of workers; a member that joins or heals then takes the exponents with the state.
func TestRepeatedStepsChangeNothing(t *testing.T) {
	run := func(kill bool, ids ...string) (f state.Fingerprint, repeated int64) {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, steps)
			for _, id := range ids {
				c.start(id, 1, nil).model.poison = func(b *evenweave.Batch, grad []float32) {
					if b.Step%5 == 4 && b.MicroBatch < 2 { // their sum is small, not its bound
						grad[7] += float32(math.Ldexp(1-2*float64(b.MicroBatch), 2*int(b.Step)))
					}
				}
			}
			c.publish(false, ids...)
			left := ids
			if kill {
				c.members[ids[0]].until(7)
				c.members[ids[0]].cancel(errKilled)
				<-c.members[ids[0]].ended
				left = ids[1:]
				c.publish(false, left...)
			}
			f = c.finish(left...)
			repeated = c.members[left[0]].repeated
			if x := slices.Max(c.members[left[0]].replica.live.Exponents); x <= 0 {
				t.Errorf("the largest exponent is %d: expected it to have risen", x)
			}
		})
		return f, repeated
	}
	want, repeated := run(false, "a")
	if repeated < 3 {
		t.Errorf("%d steps were computed again: expected the first, and some of those that grow", repeated)
	}
	for _, ids := range [][]string{{"a", "b"}, {"a", "b", "c"}, {"a", "b", "c", "d", "e"}} {
		if f, again := run(false, ids...); f != want || again != repeated {
			t.Errorf("%d workers end with %s after %d repeats, one with %s after %d", len(ids), f, again, want,
				repeated)
		}
	}
	if f, _ := run(true, "a", "b", "c"); f != want {
		t.Errorf("three workers of which one dies end with %s, one with %s", f, want)
	}
}

// TestRepeatedSampleIsCaught: the ledger holds what was loaded, not what should have been.
func TestRepeatedSampleIsCaught(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		first := int32(-1)
		c.start("a", 1, nil)
		c.start("b", 1, func(b *evenweave.Batch) {
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

// TestHungMemberIsNamed: a member blocks with its streams open; after the deadline the others accuse it, and not each
// other.
func TestHungMemberIsNamed(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		awake := make(chan struct{})
		c.start("a", 1, nil)
		c.start("b", 1, func(b *evenweave.Batch) {
			if b.Step == 6 {
				<-awake
			}
		})
		c.start("c", 1, nil)
		c.publish(false, "a", "b", "c")
		began, limit, asked := time.Now(), policy.NewDeadlines(0, steps, 0, 0), time.Duration(0)
		var accused *proto.Accusation
		for accused == nil {
			s, changed := c.members["c"].report.read(0) // its left neighbour is b
			if accused = s.Accusation; accused != nil && accused.Kind == policy.KindWaiting {
				asked, accused = time.Since(began), nil
			}
			if accused == nil {
				<-changed
			}
		}
		if accused.Suspect != "b" || accused.Kind != "deadline" || accused.Paused {
			t.Errorf("c accuses %v", accused)
		}
		if waited := time.Since(began); waited < limit.Step || waited > 2*limit.Step || asked < limit.Suspect ||
			asked > 2*limit.Suspect {
			t.Errorf("probes were asked for after %v, the hang was named after %v; the deadlines are %+v",
				asked, waited, limit)
		}
		c.publish(false, "a", "c")
		c.members["a"].until(9)
		close(awake) // it is fenced, and joins again by a planned change
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
		c.states[10] = durable.State
		c.mu.Unlock()
		c.members["a"].cancel(errKilled)
		first := int64(-1)
		c.start("b", 1, func(b *evenweave.Batch) {
			if first < 0 {
				first = b.Step
			}
		})
		c.publish(false, "b")
		c.change(func(v *cluster.View) { w := *v.World; w.DurableStep = 10; v.World = &w })
		if got := c.finish("b"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		if first != 10 {
			t.Errorf("the fresh member began at step %d, the newest durable checkpoint is of step 10", first)
		}
	})
}

// TestFenced: a member of a job that was replaced or is gone ends with an error that names the cause.
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

// TestALargeStateIsWaitedFor: a state that takes many times as long to fetch as any deadline breaks no world, while its
// blocks arrive: neither when all load the checkpoint nor when one joins.
func TestALargeStateIsWaitedFor(t *testing.T) {
	want := calm(t, 30)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 30)
		c.large = 100 * time.Second
		a := c.start("a", 1, nil)
		b := c.start("b", 1, nil)
		c.publish(false, "a", "b")
		a.until(10)
		late := c.start("late", 1, nil)
		c.publish(true, "a", "b", "late")
		if got := c.finish("a", "b", "late"); got != want {
			t.Errorf("ends with %s, a calm run with %s", got, want)
		}
		view, _ := c.View()
		if view.World.Generation != 2 || a.heals+b.heals+late.heals > 0 {
			t.Errorf("generation %d, %d heals: expected two worlds", view.World.Generation, a.heals+b.heals+late.heals)
		}
	})
}
