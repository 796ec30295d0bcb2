package coordinator

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	wire "google.golang.org/protobuf/proto"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/telemetry"
	"evenweave/proto"
)

// says lets a member's status arrive as the stream would bring it.
func (t *term) says(test *testing.T, s *proto.Status) {
	test.Helper()
	s.Job = "job"
	in := followed{member: s.Member, address: s.Member + ":1", status: s,
		invalid: checkStatus(s, *t.members.job(), s.Member, 2)}
	if end, err := t.take(test.Context(), in); end || err != nil {
		test.Fatalf("%s ended the job: %v", s.Member, err)
	}
}

// single is a term with a world of one, a, at step 40.
func single(t *testing.T) (*term, *eventLog) {
	one, events := leading(t)
	one.saver.busy = true
	one.says(t, &proto.Status{Member: "a", Generation: 1, Step: 40})
	return one, events
}

// three is a term with a world of three at step 40, of which nothing is fetched.
func three(t *testing.T) (*term, *eventLog) {
	one, events := leading(t, "a", "b", "c")
	one.saver.busy = true // nothing is fetched here
	for _, id := range []string{"a", "b", "c"} {
		one.says(t, &proto.Status{Member: id, Generation: 1, Step: 40})
	}
	return one, events
}

// A member that reports the same state several times has one vote.
func TestAMemberVotesOnce(t *testing.T) {
	one, _ := three(t)
	lie := &proto.Status{Member: "c", Generation: 1, Step: 40}
	for range 3 {
		lie.Due = append(lie.Due, heldState(40, "zeros", 1))
	}
	one.says(t, lie)
	if member, step, _, ok := one.saver.offer(time.Now()); ok || len(one.members.proofs.agreed) > 0 {
		t.Fatalf("step %d of %s is taken: %v", step, member, one.members.proofs.agreed)
	}
}

func forged(member string) *proto.Status {
	s := &proto.Status{Member: member, Generation: 1, Step: 1000, Holding: true, Held: heldState(1000, "zeros", 1),
		Verdict: "not finite"}
	for step := int64(1); step <= 1000; step++ {
		s.Commits = append(s.Commits, &proto.Commit{Step: step, Generation: 1, Workers: 1, Samples: 10,
			Metrics: []float64{1, -2}})
	}
	for step := int64(10); step <= 50; step += 10 {
		s.Due = append(s.Due, heldState(step, "zeros", 1))
	}
	return s
}

// A registered process in no world, or one member of three, cannot end the job, have a state saved, or write the curve.
func TestOneMemberIsNotBelieved(t *testing.T) {
	for _, c := range []struct {
		world func(*testing.T) (*term, *eventLog)
		liar  string
	}{{single, "stranger"}, {three, "stranger"}, {three, "c"}} {
		one, events := c.world(t)
		liar := c.liar
		if liar == "stranger" {
			one.members.followers[liar] = follower{address: liar + ":1"}
		}
		one.says(t, forged(liar))
		if one.members.agree(func(s *proto.Status) bool { return s.Verdict != "" || s.Holding }) {
			t.Errorf("%s alone decides", liar)
		}
		for _, e := range events.all {
			if s, ok := e.(progress.Step); ok && s.Step > 40 || fmt.Sprintf("%T", e) == "progress.Failure" {
				t.Fatalf("%s caused the event %+v", liar, e)
			}
		}
		if member, step, _, ok := one.saver.offer(time.Now().Add(time.Hour)); ok {
			t.Errorf("step %d of %s would be saved", step, member)
		}
		one.saver.busy = false
		one.saver.durable = checkpoint.Entry{Manifest: checkpoint.Manifest{Step: 1000}} // as if it had been saved
		if end, err := one.ended(t.Context()); end || err != nil {
			t.Errorf("%s alone ends the job: %v", liar, err)
		}
	}
}

// The due state is the one that a strict majority of the world reports; a member with another state is not asked.
func TestTheMajoritysStateIsSaved(t *testing.T) {
	one, events := three(t)
	for _, id := range []string{"a", "b", "c"} {
		hash := "right"
		if id == "a" {
			hash = "wrong"
		}
		one.says(t, &proto.Status{Member: id, Generation: 1, Step: 40, Due: []*proto.HeldState{heldState(30, hash, 1)}})
	}
	want := string(heldState(30, "right", 1).Sha256)
	member, step, hash, ok := one.saver.offer(time.Now())
	if !ok || member == "a" || step != 30 || hash != want {
		t.Fatalf("step %d of %q, %x, %v", step, member, hash, ok)
	}
	one.saver.after = time.Now().Add(time.Hour)
	if end, err := one.take(t.Context(),
		saved{step: 30, member: member, err: fmt.Errorf("%w: zeros", errForged)}); end || err != nil {
		t.Fatal(end, err)
	}
	if w := events.warnings(); len(w) != 1 || !strings.Contains(w[0], member) {
		t.Errorf("reported %q, want the name of %s, which gave another state", w, member)
	}
	second, _, _, ok := one.saver.offer(time.Now())
	if !ok || second == "a" || second == member {
		t.Errorf("asked next: %q, %v", second, ok)
	}
	one.saver.forged[second] = true
	if again, _, _, ok := one.saver.offer(time.Now()); ok {
		t.Errorf("%q is asked again, and gave another state before", again)
	}
	delete(one.saver.forged, second)
	one.enter(2, "d") // a leaving member brings what was agreed on
	one.members.statuses["d"] = &proto.Status{Member: "d", Generation: 2, Step: 40}
	if _, step, hash, ok := one.saver.offer(time.Now()); !ok || step != 30 || hash != want {
		t.Errorf("step %d, %x, %v of members that have left", step, hash, ok)
	}
}

// The steps that a world commits before it sees the next one count at once, whatever those that join have, until the
// next world has agreed on a state. Then the word of one that is still in the world before does not count. That of a
// few of a world whose others are gone never does.
func TestStepsCountBeforeTheNextWorldAgrees(t *testing.T) {
	one, _ := leading(t)
	committed := func(what string, want int64) {
		t.Helper()
		if step := one.members.committed(time.Now()); step != want {
			t.Errorf("%s: step %d counts as committed, want %d", what, step, want)
		}
	}
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 40})
	one.enter(2, "a", "b")
	one.says(t, &proto.Status{Member: "b", Generation: 2, Step: -1})
	committed("a world that b is to join", 40)
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 41})
	committed("another step of the world before", 41)
	one.says(t, &proto.Status{Member: "b", Generation: 2, Agreed: 2, Step: 41})
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 1000})
	committed("only a says more than the world that has agreed", 41)
	one.enter(3, "a")
	committed("b is gone, and was half of the world that had agreed", 1000)

	one, _ = leading(t)
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 40})
	one.enter(2, "b", "c")
	one.members.view.World.Since, one.members.proofs.worlds[1].Since = 2, 2 // a was lost: it computes no more steps
	one.says(t, &proto.Status{Member: "b", Generation: 2, Step: 40})
	one.says(t, &proto.Status{Member: "c", Generation: 2, Step: 40})
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 1000})
	committed("one that was alone before it was lost", 40)

	one, _ = three(t)
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 41})
	one.enter(2, "a", "d", "e")
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 42})
	delete(one.members.statuses, "b")
	committed("two of three of the world before have reached step 40", 40)
	delete(one.members.statuses, "c")
	committed("one of three of the world before", -1)
}

// If a world ended before this term and left no record, a state of it is saved, with a warning, when all its holders
// agree and are half of the world; not from a process that is in no world.
func TestAStateOfAWorldThatIsGone(t *testing.T) {
	one, events := leading(t)
	one.enter(7, "a", "b", "c")
	later := time.Now().Add(2 * reportWait)
	for _, id := range []string{"a", "b", "c", "spare"} {
		one.members.followers[id] = follower{address: id + ":1"}
		one.members.statuses[id] = &proto.Status{Member: id, Generation: 7, Step: 40}
	}
	clear(one.members.proofs.silent)
	one.members.statuses["spare"].Due = []*proto.HeldState{heldState(20, "x", 3)}
	for _, now := range []time.Time{time.Now(), later} {
		if _, step, _, ok := one.saver.offer(now); ok {
			t.Errorf("step %d of one in no world is saved", step)
		}
	}
	for _, id := range []string{"a", "b"} {
		one.members.statuses[id].Due = []*proto.HeldState{heldState(30, "y", 5), heldState(40, "z", 5)}
	}
	if _, step, _, ok := one.saver.offer(later); ok {
		t.Errorf("step %d is saved at once", step)
	}
	member, step, _, ok := one.saver.offer(later.Add(2 * reportWait))
	if !ok || member != "a" || step != 30 {
		t.Errorf("step %d of %q, %v", step, member, ok)
	}
	one.saver.durable.Manifest.Step = 30
	if _, step, _, ok := one.saver.offer(later.Add(2 * reportWait)); !ok || step != 40 {
		t.Errorf("step %d, %v: the next one waits again", step, ok)
	}
	if w := events.warnings(); len(w) != 3 || !strings.Contains(w[0], "step 20") ||
		!strings.Contains(w[1], "all that hold its state agree") {
		t.Errorf("reported %q", w)
	}
	one, _ = leading(t)
	one.enter(7, "a", "b", "c")
	clear(one.members.proofs.silent)
	for id, hash := range map[string]string{"a": "x", "b": "y"} {
		one.members.statuses[id] = &proto.Status{Member: id, Generation: 7, Step: 40,
			Due: []*proto.HeldState{heldState(30, hash, 5)}}
	}
	one.members.statuses["c"] = &proto.Status{Member: "c", Generation: 7, Step: 40}
	for _, now := range []time.Time{later, later.Add(2 * reportWait)} {
		if _, step, _, ok := one.saver.offer(now); ok {
			t.Errorf("step %d is saved, whose holders differ", step)
		}
	}
}

// A world proves the states that it has computed: one that was alone once, and is left out, proves none of a step that
// the others have reached without it.
func TestAWorldThatIsOverProvesNoNewStates(t *testing.T) {
	one, _ := leading(t)
	one.saver.busy = true
	one.says(t, &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: 40})
	one.enter(2, "b", "c")
	one.says(t, &proto.Status{Member: "b", Generation: 2, Agreed: 2, Step: 42})
	one.says(t, &proto.Status{Member: "c", Generation: 2, Agreed: 2, Step: 45})
	one.saver.busy = false
	later := time.Now().Add(2 * reportWait)
	claims := func(step int64) (taken int64) {
		one.members.statuses["a"] = &proto.Status{Member: "a", Generation: 1, Agreed: 1, Step: step,
			Due: []*proto.HeldState{heldState(step, "x", 1)}}
		_, taken, _, ok := one.saver.offer(later)
		if !ok {
			return -1
		}
		return taken
	}
	for _, id := range []string{"b", "c"} {
		one.members.statuses[id].Step = 100
	}
	if step := claims(50); step >= 0 {
		t.Errorf("step %d is taken from one whose world ended at step 42 or before", step)
	}
	forged := []*proto.Commit{{Step: 42, Generation: 1}, {Step: 43, Generation: 1}}
	if kept := one.members.witnessed("a", forged); len(kept) != 1 || kept[0].Step != 42 {
		t.Errorf("of its commits of step 42 and 43 these are kept: %v", kept)
	}
	if step := claims(40); step != 40 {
		t.Errorf("step 40, which its world had reached, is not taken: %d", step)
	}
}

// A state of a step that is not due is never saved.
func TestOnlyDueStatesAreSaved(t *testing.T) {
	one, _ := three(t)
	for _, id := range []string{"a", "b", "c"} {
		one.says(t, &proto.Status{Member: id, Generation: 1, Step: 40, Due: []*proto.HeldState{heldState(33, "x", 1)}})
	}
	if _, step, _, ok := one.saver.offer(time.Now().Add(time.Hour)); ok {
		t.Errorf("step %d would be saved, and checkpoints are due every 10 steps", step)
	}
}

// What cannot be is dropped, and its member named once.
func TestImpossibleStatusesAreDropped(t *testing.T) {
	good := func() *proto.Commit {
		return &proto.Commit{Step: 41, Workers: 1, Samples: 10, Metrics: []float64{0.5, 12}}
	}
	with := func(change func(*proto.Commit)) *proto.Status {
		c := good()
		change(c)
		return &proto.Status{Generation: 1, Step: 41, Commits: []*proto.Commit{c}}
	}
	bad := map[string]*proto.Status{
		"time":         with(func(c *proto.Commit) { c.ComputeNanos = -1e12 }),
		"loss":         with(func(c *proto.Commit) { c.Loss = math.NaN() }),
		"metric":       with(func(c *proto.Commit) { c.Metrics[1] = math.NaN() }),
		"skipped":      with(func(c *proto.Commit) { c.Skipped = "the loss" }),
		"one metric":   with(func(c *proto.Commit) { c.Metrics = c.Metrics[:1] }),
		"more metrics": with(func(c *proto.Commit) { c.Metrics = make([]float64, 3) }),
		"step":         with(func(c *proto.Commit) { c.Step = 1001 }),
		"workers":      with(func(c *proto.Commit) { c.Workers = -1 }),
		"beyond":       {Step: 1 << 62},
		"generation":   {Generation: math.MaxInt64},
		"negative":     {Generation: -1},
		"opened":       {Generation: 1, Opened: 2},
		"agreed":       {Generation: 1, Agreed: 2},
		"order":        {Commits: []*proto.Commit{good(), good()}},
		"many":         {Commits: make([]*proto.Commit, maxCommits+1)},
		"due":          {Due: []*proto.HeldState{heldState(1<<62, "x", 1)}},
		"hash":         {Due: []*proto.HeldState{{Step: 10, Sha256: []byte("short")}}},
		"held":         {Holding: true, Step: 10},
		"ledger":       {Ledger: &proto.Ledger{Used: -1}},
		"heals":        {Heals: -1},
		"accusation":   {Accusation: &proto.Accusation{WaitedNanos: -1}},
		"due too many": {Due: make([]*proto.HeldState, maxHeld+1)},
	}
	for what, s := range bad {
		one, events := three(t)
		before := len(events.all)
		for range 2 {
			s.Member = "b"
			one.says(t, s)
		}
		if w := events.warnings(); len(w) != 1 || len(events.all) != before+1 || one.members.statuses["b"].Step != 40 {
			t.Errorf("%s: events %v, status %v", what, events.all[before:], one.members.statuses["b"])
		}
	}
	if err := checkCommit(good(), job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 1000},
		1, 2); err != nil {
		t.Errorf("a good commit is dropped, so the bad ones show nothing: %v", err)
	}
	if err := checkCommit(&proto.Commit{Step: 41, Workers: 1, Samples: 10, Metrics: []float64{0, 0},
		Skipped: "the loss"},
		job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 1000, OnNonfinite: job.Skip}, 1,
		2); err != nil {
		t.Errorf("a job that skips steps has skipped one: %v", err)
	}
	one, _ := three(t)
	s := &proto.Status{Member: "b", Generation: 1, Step: 40, Phase: "\x1b[2Jx\u202e",
		Accusation: &proto.Accusation{Detail: strings.Repeat("\u009b", 1<<20)}}
	one.says(t, s)
	if s.Phase != "[2Jx" || len(s.Accusation.Detail) > 1024 {
		t.Errorf("phase %q, detail of %d bytes", s.Phase, len(s.Accusation.Detail))
	}
}

// FuzzStatus sends what a member may send through all that it reaches: validation, policy, saver, metrics and the
// encoding of events.
func FuzzStatus(f *testing.F) {
	for _, s := range []*proto.Status{forged("c"),
		{Member: "c", Verdict: "x", Accusation: &proto.Accusation{Suspect: "a", Kind: "deadline"}}} {
		b, err := wire.Marshal(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		one, events := three(t)
		metrics := telemetry.NewCoordinator(func() telemetry.Facts { return telemetry.Facts{} })
		for i, b := range [][]byte{first, second} {
			s := &proto.Status{}
			if len(b) > maxStatus || wire.Unmarshal(b, s) != nil {
				continue
			}
			s.Member = []string{"c", "b"}[i]
			s.Job = "job"
			in := followed{member: s.Member, address: s.Member + ":1", status: s,
				invalid: checkStatus(s, *one.members.job(), s.Member, 2)}
			if s.Verdict != "" && in.invalid == nil && i == 1 {
				s.Verdict = "" // two of three may end the job, for which this term has no etcd
			}
			if end, err := one.take(t.Context(), in); end || err != nil {
				t.Fatal(end, err)
			}
			_, _, _, _ = one.saver.offer(time.Now().Add(time.Hour))
			one.saver.lostEpochs(s.Step)
		}
		for _, e := range events.all {
			r := progress.Record{Time: time.Unix(0, 0), Event: e}
			metrics.Observe(r)
			if _, err := progress.Encode(r); err != nil {
				t.Error(err)
			}
		}
		if len(one.steps.early) > maxEarly || len(events.all) > 2*maxCommits {
			t.Errorf("%d commits wait, %d events", len(one.steps.early), len(events.all))
		}
	})
}

// gated is a file system whose removals wait for the test.
type gated struct {
	checkpoint.OS
	entered, gate chan struct{}
}

func (g gated) Remove(name string) error {
	if strings.HasSuffix(name, ".ckpt") {
		g.entered <- struct{}{}
		<-g.gate
	}
	return g.OS.Remove(name)
}

// A stalled disk delays saving, not the term's loop, which goes on to take reports and to decide.
func TestTheLoopWaitsForNoDisk(t *testing.T) {
	one, events := three(t)
	fs := gated{entered: make(chan struct{}), gate: make(chan struct{})}
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	archive := &archive{Store: store, keep: 1, spared: func() []int64 { return nil }, log: one.log}
	var last checkpoint.Entry
	for step := int64(10); step <= 20; step += 10 {
		m := checkpoint.Manifest{Step: step}
		path, err := store.Save(t.Context(), &m, nil, nothing)
		if err != nil {
			t.Fatal(err)
		}
		last = checkpoint.Entry{Path: path, Step: step, Manifest: m}
	}
	pruned := make(chan struct{})
	go func() {
		defer close(pruned)
		archive.prune(t.Context(), 1)
	}()
	<-fs.entered // the disk stands still
	one.saver.after = time.Now().Add(time.Hour)
	if end, err := one.take(t.Context(), saved{step: 20, member: "a", entry: last}); end || err != nil {
		t.Fatal(end, err)
	}
	one.says(t, &proto.Status{Member: "a", Generation: 1, Step: 41})
	if one.saver.durable.Step != 20 || one.members.statuses["a"].Step != 41 || len(events.all) == 0 {
		t.Errorf("durable: step %d; status: %v", one.saver.durable.Step, one.members.statuses["a"])
	}
	close(fs.gate)
	<-pruned
}
