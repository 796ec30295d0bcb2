package coordinator

import (
	"strings"
	"testing"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// What one member of three says is proved by no time that passes: not a state that the others do not claim yet, or not
// any more, of whichever generation it says that it is; and the word of the majority, when it comes, is taken.
func TestAStateIsNotProvedByOneMember(t *testing.T) {
	later := time.Now().Add(2 * reportWait)
	right := string(heldState(50, "right", 1).Sha256)
	for _, generation := range []int64{0, 1, 2, 77} {
		one, _ := leading(t, "a", "b", "c")
		one.enter(2, "a", "b", "c")
		one.saver.busy = true
		say := func(hash string, members ...string) {
			for _, id := range members {
				one.says(t, &proto.Status{Member: id, Generation: 2, Opened: 2, Agreed: 2, Step: 51,
					Due: []*proto.HeldState{heldState(50, hash, generation)}})
			}
		}
		for _, id := range []string{"a", "b"} {
			one.says(t, &proto.Status{Member: id, Generation: 2, Opened: 2, Agreed: 2, Step: 51})
		}
		say("forged", "c")
		for _, now := range []time.Time{time.Now(), later, later.Add(2 * reportWait)} {
			if _, step, _, ok := one.saver.offer(now); ok {
				t.Fatalf("generation %d: step %d is proved by one of three", generation, step)
			}
		}
		one.members.unfollow("a")
		one.members.unfollow("b")
		if _, step, _, ok := one.saver.offer(later.Add(4 * reportWait)); ok {
			t.Fatalf("generation %d: step %d is proved by one of three while the others are silent", generation, step)
		}
		if generation == 0 || generation == 77 { // no world has these
			continue
		}
		say("right", "a", "b")
		if member, _, hash, ok := one.saver.offer(later.Add(4 * reportWait)); !ok || hash != right || member == "c" {
			t.Errorf("generation %d: the majority's state is not taken, but %x of %q: %v", generation, hash, member, ok)
		}
	}
}

// The one that is left of a world proves its state, until a majority says otherwise.
func TestTheLastOfAWorldProvesItsState(t *testing.T) {
	one, events := leading(t, "a", "b", "c")
	one.enter(2, "a", "d", "e")
	one.saver.busy = true
	for _, id := range []string{"a", "d", "e"} {
		one.says(t, &proto.Status{Member: id, Generation: 2, Opened: 2, Agreed: 2, Step: 51})
	}
	one.says(t, &proto.Status{Member: "a", Generation: 2, Opened: 2, Agreed: 2, Step: 51,
		Due: []*proto.HeldState{heldState(50, "left", 1)}})
	one.saver.offer(time.Now())
	later := time.Now().Add(2 * reportWait)
	member, step, _, ok := one.saver.offer(later)
	if !ok || member != "a" || step != 50 || len(events.warnings()) != 1 {
		t.Fatalf("step %d of %q, %v, with the warnings %q", step, member, ok, events.warnings())
	}
	for _, id := range []string{"b", "c"} { // they were not gone
		one.members.followers[id] = follower{address: id + ":1"}
		one.says(t, &proto.Status{Member: id, Generation: 1, Step: 50,
			Due: []*proto.HeldState{heldState(50, "right", 1)}})
	}
	if member, _, _, ok := one.saver.offer(later); !ok || member == "a" {
		t.Errorf("the state of %q is taken, %v, and two of three claim another one", member, ok)
	}
}

// While most of a world of three does not report, the rest of it neither gives a verdict nor ends the job.
func TestTheRestOfASilentWorldDecidesNothing(t *testing.T) {
	one, _ := three(t)
	for _, id := range []string{"a", "b"} {
		one.members.unfollow(id)
		one.members.proofs.silent[id] = time.Now().Add(-2 * reportWait)
	}
	one.members.statuses["c"] = &proto.Status{Member: "c", Generation: 1, Step: 1000, Verdict: "not finite"}
	if one.members.agree(func(s *proto.Status) bool { return s.Verdict != "" }) {
		t.Error("one of three gives a verdict")
	}
	if step := one.members.committed(time.Now()); step != -1 {
		t.Errorf("step %d counts as committed", step)
	}
	two, _ := leading(t, "a", "b")
	two.says(t, &proto.Status{Member: "b", Generation: 1, Step: 40})
	two.members.proofs.silent["a"] = time.Now().Add(-2 * reportWait)
	if step := two.members.committed(time.Now()); step != 40 {
		t.Errorf("step %d counts as committed by one of two whose peer is gone, want 40", step)
	}
}

// The curve is what most members report: not what one says before the others, however early, nor when as many say
// otherwise.
func TestOneMemberDoesNotWriteTheCurve(t *testing.T) {
	one, events := three(t)
	one.steps.begin(40)
	status := func(member string, loss float64, first, last int64) *proto.Status {
		s := &proto.Status{Member: member, Generation: 1, Opened: 1, Step: last}
		for step := first; step <= last; step++ {
			s.Commits = append(s.Commits, &proto.Commit{Step: step, Generation: 1, Workers: 1, Samples: 10, Loss: loss,
				Metrics: []float64{1, 2}})
		}
		return s
	}
	for from := int64(41); from <= 1000; from += 100 {
		one.says(t, status("c", 999, from, min(from+99, 1000)))
	}
	for step := int64(41); step <= 60; step++ {
		one.says(t, status("a", 0.5, step, step))
		one.says(t, status("b", 0.5, step, step))
	}
	var steps []int
	for _, e := range events.all {
		if s, ok := e.(progress.Step); ok {
			if steps = append(steps, s.Step); s.Loss != 0.5 {
				t.Errorf("step %d has the loss %v of one member", s.Step, s.Loss)
			}
		}
	}
	if len(steps) != 20 || steps[0] != 41 || steps[19] != 60 {
		t.Errorf("the steps %v are reported, want 41 to 60", steps)
	}
}

// While one of three is silent, a step of which the other two say different things is not guessed.
func TestADisputedStepIsLeftOut(t *testing.T) {
	one, events := three(t)
	one.steps.begin(40)
	for _, member := range []string{"c", "a"} {
		loss := map[string]float64{"a": 0.5, "c": 999}[member]
		one.says(t, &proto.Status{Member: member, Generation: 1, Opened: 1, Step: 41, Commits: []*proto.Commit{
			{Step: 41, Generation: 1, Workers: 1, Samples: 10, Loss: loss, Metrics: []float64{1, 2}}}})
	}
	one.reportSteps(0, "")
	for _, e := range events.all {
		if s, ok := e.(progress.Step); ok {
			t.Errorf("step %d has the loss %v", s.Step, s.Loss)
		}
	}
	if w := events.warnings(); len(w) != 1 || !strings.Contains(w[0], "step 41 is left out") || one.steps.step() != 41 {
		t.Errorf("warnings %q, up to step %d", w, one.steps.step())
	}
}

// A halt before there is a world, and a registered process that claims a due state.
func TestAClaimBeforeAnyWorld(t *testing.T) {
	j := job.Job{UUID: "job", CheckpointEvery: 10, Spec: job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10,
		Steps: 1000}}
	one := onADirectory(t, &eventLog{}).newTerm(nil, 1, cluster.View{Job: &j}, checkpoint.Entry{})
	one.members.followers["x"] = follower{address: "x:1"}
	one.halting = true
	one.says(t, &proto.Status{Member: "x", Generation: 1, Step: 51, Due: []*proto.HeldState{heldState(50, "h", 1)}})
	one.halted(t.Context())
	if _, step, _, ok := one.saver.offer(time.Now().Add(time.Hour)); ok {
		t.Errorf("step %d is saved by the word of one in no world", step)
	}
}

// One that fills the memory for steps to come keeps no earlier ones out.
func TestStepsToComeKeepNoEarlierOnesOut(t *testing.T) {
	var s summary
	now := time.Unix(0, 0)
	for from := int64(101); from < 2*maxEarly; from += 1000 {
		s.take(hundred, now, time.Hour, 0, "c", commits(from, from+999)...)
	}
	due := s.take(hundred, now, time.Hour, 100, "a", commits(1, 100)...)
	if len(due) != 100 || len(s.early) > maxEarly {
		t.Errorf("%d steps are reported, want 100; %d wait", len(due), len(s.early))
	}
}

// A spare is not believed about heals, and those of a member are not said without end.
func TestHealsAreNotSaidWithoutEnd(t *testing.T) {
	one, events := three(t)
	one.members.followers["spare"] = follower{address: "spare:1"}
	for i := int64(1); i <= 500; i++ {
		one.says(t, &proto.Status{Member: "spare", Step: -1, Heals: i, Heal: "of a spare"})
		one.says(t, &proto.Status{Member: "c", Generation: 1, Step: 40, Heals: i, Heal: "of c"})
	}
	if w := events.warnings(); len(w) != saidOften+5 {
		t.Errorf("%d warnings, want %d: %q", len(w), saidOften+5, w)
	}
}
