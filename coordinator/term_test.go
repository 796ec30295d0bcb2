package coordinator

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/internal/web"
	"evenweave/proto"
)

// What a follower said before it was dropped may still be queued; it must not make a member of it again, nor speak for the process that has its
// id now.
func TestDroppedFollowersAreNotHeard(t *testing.T) {
	now := &proto.Status{Member: "b", Step: 7}
	one := &term{}
	one.init()
	one.followers["b"], one.told["b"] = follower{address: "b:2"}, now
	for _, in := range []followed{
		{member: "a", address: "a:1", status: &proto.Status{Member: "a", Holding: true}},
		{member: "b", address: "b:1", status: &proto.Status{Member: "b", Step: 6}},
		{member: "b", address: "b:1"}, // its stream ended
	} {
		if end, err := one.take(t.Context(), in); end || err != nil {
			t.Errorf("%+v: end %v, %v", in, end, err)
		}
	}
	if len(one.told) != 1 || one.told["b"] != now {
		t.Errorf("heard: %v", one.told)
	}
}

// A coordinator that leads again, and so has all commits already, still learns that the present generation has opened.
func TestAGenerationOpensWithoutNewCommits(t *testing.T) {
	one, _ := three(t)
	for opened, want := range map[int64]bool{0: false, 1: true} {
		if told := one.fact(&proto.Status{Member: "a", Generation: 1, Step: 40, Opened: opened}); told.Committed != want {
			t.Errorf("generation %d opened for a: in generation 1 it has committed: %v", opened, told.Committed)
		}
	}
}

// leading is a term without etcd, on a directory of its own, and what it tells.
func leading(t *testing.T) (*term, *eventLog) {
	t.Helper()
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	told := &eventLog{}
	c := &Coordinator{
		Config: Config{Dir: t.TempDir(), Observer: told, Log: slog.New(slog.DiscardHandler), Keep: 3}, store: store,
		evaluations: newEvaluations(), recent: &summary{}, status: newStatusBoard(), page: web.New(), healed: map[string]int64{},
	}
	closeMetrics, err := c.openMetrics()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeMetrics)
	one := &term{
		c: c, uuid: "job", job: job.Job{UUID: "job", CheckpointEvery: 10, Spec: job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 1000}},
		policy: policy.New("job", "", 0, policy.Limits{Min: 1, Max: 2}), inputs: make(chan any, 16),
	}
	one.init()
	one.enter(1, "a")
	return one, told
}

// enter makes these members the world, each followed at its address.
func (t *term) enter(generation int64, ids ...string) {
	w := job.World{Job: "job", Generation: generation, Since: generation}
	for _, id := range ids {
		t.followers[id] = follower{address: id + ":1"}
		w.Peers = append(w.Peers, job.Peer{ID: id, Address: id + ":1"})
	}
	t.view.World = &w
	t.proofs.enter(w, time.Now())
}

// eventLog keeps what a coordinator tells.
type eventLog struct{ all []progress.Event }

func (l *eventLog) Observe(r progress.Record) { l.all = append(l.all, r.Event) }

func (l *eventLog) warnings() (texts []string) {
	for _, e := range l.all {
		if w, ok := e.(progress.Warning); ok {
			texts = append(texts, w.Message)
		}
	}
	return texts
}

// A world that could not be published is decided upon anew: until the policy hears of that, it waits for what it has asked for.
func TestAFailedPublicationIsTriedAgain(t *testing.T) {
	one, _ := leading(t)
	here := policy.Observed{Members: []job.Member{{ID: "a", Address: "a:1", Numerics: "n", Protocol: job.Protocol}}}
	asks := func() int { return len(one.policy.Step(time.Now(), here)) }
	if n := asks(); n != 1 {
		t.Fatalf("the policy asks for %d things, want the job's numerics", n)
	}
	if n := asks(); n != 0 {
		t.Fatalf("the policy asks for %d things while a transaction is under way", n)
	}
	one.policy.Step(time.Now(), policy.Observed{}) // nothing to ask for, until it is heard of
	one.unpublished(t.Context())
	one.tasks.Wait()
	if end, err := one.take(t.Context(), <-one.inputs); end || err != nil {
		t.Fatal(end, err)
	}
	if n := asks(); n != 1 {
		t.Error("the policy still waits for what failed")
	}
}

// A member's stream may end and come back; that it was healed once is told once.
func TestHealsAreToldOnce(t *testing.T) {
	one, told := leading(t)
	say := func(heals int64, what string) {
		t.Helper()
		for _, s := range []*proto.Status{{Member: "a", Heals: heals, Heal: what}, nil} {
			if end, err := one.take(t.Context(), followed{member: "a", address: "a:1", status: s}); end || err != nil {
				t.Fatal(end, err)
			}
		}
	}
	say(0, "")
	say(1, "first")
	say(1, "first")
	say(2, "second")
	if got, want := told.warnings(), []string{"healed: first", "healed: second"}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// States that no member holds any more when their turn comes are passed over at once, and told of where they were epochs' ends.
func TestLostDueStatesAreTold(t *testing.T) {
	one, told := leading(t)
	at := func(step int64) saved {
		return saved{step: step, member: "a", entry: checkpoint.Entry{Step: step, Manifest: checkpoint.Manifest{Step: step}}}
	}
	gone := saved{step: 200, member: "a", err: fmt.Errorf("fetching: %w", status.Error(codes.NotFound, "not here"))}
	say := func(in saved) {
		t.Helper()
		one.saving = true
		if end, err := one.take(t.Context(), in); end || err != nil {
			t.Fatal(end, err)
		}
	}
	say(at(100)) // 100 steps are an epoch
	one.told["a"] = &proto.Status{Step: 400, Due: []*proto.HeldState{heldState(200, "x", 1), heldState(300, "y", 1)}}
	later := time.Now().Add(time.Hour)
	one.saveAfter = later // there is nobody to fetch from here
	say(gone)
	if _, step, _, ok := one.offer(time.Now()); !ok || step != 300 || one.saveAfter != later {
		t.Errorf("step %d is on offer, asked for after %v; want 300, at once", step, one.saveAfter)
	}
	say(at(300))
	say(at(400))
	if got := told.warnings(); len(got) != 1 || !strings.Contains(got[0], "1 epochs ended") {
		t.Errorf("told %q", got)
	}
}

func heldState(step int64, hash string, generation int64) *proto.HeldState {
	sum := sha256.Sum256([]byte(hash))
	return &proto.HeldState{Step: step, Sha256: sum[:], Generation: generation}
}
