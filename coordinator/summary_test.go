package coordinator

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

var hundred = job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 100}

// commits are those of the steps from first to last.
func commits(first, last int64) (all []*proto.Commit) {
	for step := first; step <= last; step++ {
		all = append(all, &proto.Commit{Step: step, Samples: 10, TimeNanos: step, Metrics: []float64{1, 2}})
	}
	return all
}

func numbers(events []progress.Step) (steps []int) {
	for _, e := range events {
		steps = append(steps, e.Step)
	}
	return steps
}

// Members that joined at different steps report in any order and in any pieces: each step is reported once, in order,
// as soon as possible.
func TestStepsAreReportedInOrder(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		members := [][]*proto.Commit{commits(1, 100)}
		for range r.IntN(4) {
			members = append(members, commits(1+r.Int64N(100), 100))
		}
		var (
			s      summary
			events []int
			now    = time.Unix(0, 0)
		)
		for len(members) > 0 {
			m := r.IntN(len(members))
			n := 1 + r.IntN(len(members[m]))
			due := s.take(hundred, now, time.Hour, 100, fmt.Sprint(m), members[m][:n]...)
			events = append(events, numbers(due)...)
			if members[m] = members[m][n:]; len(members[m]) == 0 {
				members = slices.Delete(members, m, m+1)
			}
		}
		want := numbers(new(summary).take(hundred, now, 0, 100, "a", commits(1, 100)...))
		if !slices.Equal(events, want) || len(events) != 100 {
			t.Fatalf("seed %d: reported %v", seed, events)
		}
	}
}

// Steps that no member knows are waited for, then passed over.
func TestLostStepsAreWaitedFor(t *testing.T) {
	var s summary
	at := func(after time.Duration, commits ...*proto.Commit) []int {
		return numbers(s.take(hundred, time.Unix(0, 0).Add(after), time.Second, 100, "a", commits...))
	}
	for _, c := range []struct {
		after   time.Duration
		commits []*proto.Commit
		want    []int
	}{
		{0, commits(1, 2), []int{1, 2}},
		{0, commits(5, 6), nil},
		{900 * time.Millisecond, commits(9, 9), nil},
		{time.Second, nil, []int{5, 6}},
		{1900 * time.Millisecond, commits(3, 4), nil}, // too late
		{2 * time.Second, nil, []int{9}},
		{2 * time.Second, commits(10, 10), []int{10}},
	} {
		if got := at(c.after, c.commits...); !slices.Equal(got, c.want) {
			t.Errorf("after %v: reported %v, want %v", c.after, got, c.want)
		}
	}
}

// A new term waits for members that know earlier steps, however old the gap is.
func TestATermWaitsForEarlierSteps(t *testing.T) {
	var s summary
	now := time.Unix(0, 0)
	s.take(hundred, now, time.Second, 100, "a", commits(8, 10)...)
	now = now.Add(time.Hour)
	s.lead(s.step())
	if events := numbers(s.take(hundred, now, time.Second, 100, "a")); events != nil {
		t.Errorf("reported %v before any member reported", events)
	}
	if events := numbers(s.take(hundred, now, time.Second, 100, "a", commits(1, 8)...)); len(events) != 10 {
		t.Errorf("reported %v, want 10 steps", events)
	}
}

// For a while, a state is not made durable before the steps up to it are reported: a run that goes on from it does not
// ask for them.
func TestNothingIsSavedAheadOfItsSteps(t *testing.T) {
	for _, known := range [][]*proto.Commit{commits(8, 10), nil} {
		one, events := leading(t)
		one.enter(2, "b")
		one.members.statuses["b"] = &proto.Status{Member: "b", Step: 10, Due: []*proto.HeldState{heldState(10, "x", 2)}}
		one.reportSteps(time.Hour, "b", known...)
		now := time.Now()
		for _, after := range []time.Duration{0, reportWait - time.Millisecond} {
			if member, step, _, ok := one.saver.next(now.Add(after)); ok || len(events.all) > 0 {
				t.Fatalf("step %d of %q is saved after %v; reported %v", step, member, after, events.all)
			}
		}
		if member, step, _, ok := one.saver.next(now.Add(2 * reportWait)); !ok || member != "b" || step != 10 {
			t.Errorf("saves step %d of %q, %v, when no member reports the steps", step, member, ok)
		}
		one.members.statuses["a"] = &proto.Status{}
		one.reportSteps(time.Hour, "b", commits(1, 10)...)
		if member, step, _, ok := one.saver.next(now); !ok || member != "b" || step != 10 || len(events.all) != 10 {
			t.Errorf("saves step %d of %q, %v; reported %v, want 10 steps", step, member, ok, events.all)
		}
	}
}

// Skipped steps are counted once, also those that an earlier leader reported, and are no part of a curve's numbers.
func TestSkippedStepsAreCountedAndNamed(t *testing.T) {
	one, events := leading(t)
	one.steps.recall(progress.Record{Event: progress.Step{Step: 2, Skipped: "the loss"}})
	one.steps.recall(progress.Record{Event: progress.Step{Step: 3}})
	all := commits(1, 150)
	for _, c := range all[1:149] {
		c.Skipped = "micro-batch 3 of 8: the loss is not finite"
	}
	one.enter(2, "b")
	one.members.statuses["b"] = &proto.Status{Member: "b", Step: 150}
	one.reportSteps(time.Hour, "b", all...)
	w := events.warnings()
	if _, n, _ := one.steps.total(); n != 148 || len(w) != saidOften+1 {
		t.Fatalf("%d steps are skipped, with %d warnings: %q", n, len(w), w)
	}
	if want := "step 3 is skipped and changes no weight (skipped so far: 2): micro-batch 3"; !strings.Contains(w[1],
		want) {
		t.Errorf("the warning is %q, expected %q", w[1], want)
	}
}

// Steps that only a minority reports wait until the others reach them, in bounded memory.
func TestStepsOfAMinorityWait(t *testing.T) {
	s, now := new(summary), time.Unix(0, 0)
	if events := s.take(hundred, now, 0, 3, "a", commits(1, 100)...); len(events) != 3 || s.step() != 3 {
		t.Errorf("%d steps are reported, want 3", len(events))
	}
	if events := s.take(hundred, now, 0, 50, "a"); len(events) != 47 {
		t.Errorf("%d steps are reported then, want 47", len(events))
	}
	for from := int64(101); from < 10*maxEarly; from += 1000 {
		s.take(hundred, now, time.Hour, 50, "c", commits(from, from+999)...)
	}
	if len(s.early) > maxEarly {
		t.Errorf("%d commits are kept", len(s.early))
	}
}

// A member may commit in a world before this term has seen it: its commits are kept until then, in bounded memory, and
// those of a stranger reported never.
func TestCommitsAheadOfTheirWorldAreKept(t *testing.T) {
	one, events := leading(t)
	report := func(member string, generation, first, last int64) {
		t.Helper()
		one.members.followers[member] = follower{address: member + ":1"}
		s := &proto.Status{Member: member, Job: "job", Generation: generation, Step: last,
			Commits: commits(first, last)}
		for _, c := range s.Commits {
			c.Generation = generation
		}
		if _, err := one.take(t.Context(), followed{member: member, address: member + ":1", status: s}); err != nil {
			t.Fatal(err)
		}
	}
	report("b", 2, 1, 20)
	report("b", 2, 21, 30)
	report("stranger", 2, 1, 90)
	for i := range int64(3) {
		report("flood", 9, 1+i*maxCommits/2, (i+1)*maxCommits/2)
	}
	if len(events.all) != 0 {
		t.Fatalf("reported %v before the world was seen", events.all)
	}
	if n := len(one.members.ahead["flood"]); n > maxCommits {
		t.Errorf("%d commits of one member are kept", n)
	}
	one.enter(2, "b")
	one.catchUp()
	if len(events.all) != 30 || len(one.members.ahead["b"]) != 0 {
		t.Errorf("%d steps are reported, %d kept; want 30, 0", len(events.all), len(one.members.ahead["b"]))
	}
}
