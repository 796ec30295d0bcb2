package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// What a follower said before it was dropped may still be queued; it must not make a member of it again, nor speak for
// the process that has its id now.
func TestDroppedFollowersAreIgnored(t *testing.T) {
	now := &proto.Status{Member: "b", Step: 7}
	one, _ := leading(t)
	one.members.followers["b"], one.members.statuses["b"] = follower{address: "b:2"}, now
	for _, in := range []followed{
		{member: "c", address: "c:1", status: &proto.Status{Member: "c", Holding: true}},
		{member: "b", address: "b:1", status: &proto.Status{Member: "b", Step: 6}},
		{member: "b", address: "b:1"}, // its stream ended
	} {
		if end, err := one.take(t.Context(), in); end || err != nil {
			t.Errorf("%+v: end %v, %v", in, end, err)
		}
	}
	if len(one.members.statuses) != 1 || one.members.statuses["b"] != now {
		t.Errorf("statuses: %v", one.members.statuses)
	}
}

// A coordinator that leads again, and so has all commits already, still learns that the present generation has opened.
func TestAGenerationOpensWithoutNewCommits(t *testing.T) {
	one, _ := three(t)
	for opened, want := range map[int64]bool{0: false, 1: true} {
		if report := one.members.fact(&proto.Status{Member: "a", Generation: 1, Step: 40,
			Opened: opened}); report.Committed != want {
			t.Errorf("generation %d opened for a: in generation 1 it has committed: %v", opened, report.Committed)
		}
	}
	if report := one.members.fact(&proto.Status{Member: "a", Generation: 1, Agreed: 1}); !report.Agreed ||
		report.Committed {
		t.Errorf("a has agreed in generation 1, and the policy gets %+v", report)
	}
}

// onADirectory is a coordinator without etcd on a directory of its own, its journal open.
func onADirectory(t *testing.T, events *eventLog) *Coordinator {
	t.Helper()
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := newCoordinator(Config{Dir: t.TempDir(), Observer: events, Log: slog.New(slog.DiscardHandler), Keep: 3,
		Limits: policy.Limits{Min: 1, Max: 2}, MetricNames: []string{"perplexity", "mae"},
		Spec: job.Spec{Samples: 1000}}, nil, store, flat(t, 100))
	closeJournal, err := c.openJournal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeJournal)
	return c
}

// leading is a term without etcd, with a world of these members, or of a alone, and its events.
func leading(t *testing.T, members ...string) (*term, *eventLog) {
	t.Helper()
	if len(members) == 0 {
		members = []string{"a"}
	}
	events := &eventLog{}
	j := job.Job{UUID: "job", CheckpointEvery: 10, Spec: job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10,
		Steps: 1000}}
	one := onADirectory(t, events).newTerm(nil, 1, cluster.View{Job: &j}, checkpoint.Entry{})
	one.enter(1, members...)
	return one, events
}

// enter makes these members the world, each followed at its address, by a planned change.
func (t *term) enter(generation int64, ids ...string) {
	w := job.World{Job: "job", Generation: generation, Since: max(1, generation-1)}
	for _, id := range ids {
		t.members.followers[id] = follower{address: id + ":1"}
		w.Peers = append(w.Peers, job.Peer{ID: id, Address: id + ":1"})
	}
	t.members.view.World = &w
	t.members.proofs.enter(w, time.Now())
}

// eventLog keeps a coordinator's events.
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

// TestAMemberThatGivesNoStatusIsNamed, though it answers probes: once, with the reason, until it gives one.
func TestAMemberThatGivesNoStatusIsNamed(t *testing.T) {
	one, events := leading(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tried := make(chan struct{})
	server, serving := grpc.NewServer(grpc.StreamInterceptor(
		func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			select {
			case tried <- struct{}{}:
			case <-stream.Context().Done():
			}
			return handle(srv, stream)
		})), make(chan struct{})
	proto.RegisterMemberServer(server, answers{asked: &atomic.Int64{}}) // it has no Follow
	go func() { defer close(serving); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-serving }()
	d := one.dialer
	d.keys, d.quiet = func(string) []string { return nil }, 0
	address := l.Addr().String()
	ctx, stop := context.WithCancel(t.Context())
	one.members.followers["a"] = follower{address: address}
	if p := d.probe(ctx, "a", address); p.Outcome != policy.Alive {
		t.Fatal(p)
	}
	one.tasks.Go(func() { d.follow(ctx, *one.members.job(), "a", address, 0, one.inputs) })
	<-tried
	if end, err := one.take(ctx, <-one.inputs); end || err != nil {
		t.Fatal(end, err)
	}
	if got := events.warnings(); len(got) != 1 || !strings.Contains(got[0], "a at "+address) ||
		!strings.Contains(got[0], "method Follow not implemented") {
		t.Errorf("%q", got)
	}
	<-tried
	<-tried // so the try before has ended
	stop()
	one.tasks.Wait()
	if len(one.inputs) > 0 {
		t.Errorf("said again: %+v", <-one.inputs)
	}
}

// TestAMemberThatHasEndedIsNotNamed for giving no status: probes find out that nothing answers at its address.
func TestAMemberThatHasEndedIsNotNamed(t *testing.T) {
	one, _ := leading(t)
	d := one.dialer
	d.keys, d.quiet = func(string) []string { return nil }, 0
	ctx, stop := context.WithTimeout(t.Context(), 2*refollow) // two tries or more; one would be enough
	defer stop()
	d.follow(ctx, *one.members.job(), "a", "unix:"+filepath.Join(t.TempDir(), "gone.sock"), 0, one.inputs)
	if len(one.inputs) > 0 {
		t.Errorf("%+v", <-one.inputs)
	}
}

// A failed publication is decided again: until the policy learns of the failure, it waits.
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
	one.policy.Step(time.Now(), policy.Observed{}) // no action until it learns of the failure
	one.unpublished(t.Context(), "it cannot be recorded", cluster.ErrFenced)
	one.tasks.Wait()
	if end, err := one.take(t.Context(), <-one.inputs); end || err != nil {
		t.Fatal(end, err)
	}
	if n := asks(); n != 1 {
		t.Error("the policy still waits for what failed")
	}
}

// refusing refuses all records.
type refusing struct{ records }

func (refusing) PublishWorld(context.Context, cluster.View, job.World) error {
	return errors.New("etcdserver: mvcc: database space exceeded")
}

// TestWhatCannotBePublishedIsSaid, once, when it has been tried for a while; and again after one that could be.
func TestWhatCannotBePublishedIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, events := leading(t)
		one.records = refusing{}
		for range 2 {
			for began := time.Now(); time.Since(began) < time.Minute; {
				one.publish(t.Context(), job.World{Generation: 7})
				one.tasks.Wait()
				if in := <-one.inputs; in != (policy.Unpublished{}) {
					t.Fatalf("the policy gets %v", in)
				}
			}
			one.unwritten = time.Time{} // a world was published
		}
		for range 3 { // failures with an hour between them are not one of ten seconds
			one.publish(t.Context(), job.World{Generation: 8})
			one.tasks.Wait()
			<-one.inputs
			<-time.After(time.Hour)
		}
		said := events.warnings()
		if len(said) != 2 || said[0] != said[1] || !strings.Contains(said[0], "generation 7 cannot be published") ||
			!strings.Contains(said[0], "space exceeded") {
			t.Errorf("said %q, want what fails, and why, twice", said)
		}
	})
}

// led writes the leader's record, or says why not.
type led struct {
	records
	err error
}

func (l led) ReplaceLeader(context.Context, cluster.View) error { return l.err }

// TestTheLeadersRecordIsRepaired at each tick; without its key in etcd the term is over, and not when etcd is away.
func TestTheLeadersRecordIsRepaired(t *testing.T) {
	one, _ := leading(t)
	for _, c := range []struct {
		leader error
		over   bool
	}{{nil, false}, {context.DeadlineExceeded, false}, {cluster.ErrFenced, true}} {
		one.records = led{err: c.leader}
		if err := one.repair(t.Context()); errors.Is(err, errTermOver) != c.over || (err != nil) != c.over {
			t.Errorf("%v: %v", c.leader, err)
		}
	}
}

// A member's stream may end and come back; one heal is reported once.
func TestHealsAreReportedOnce(t *testing.T) {
	one, events := leading(t)
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
	if got, want := events.warnings(), []string{"healed: first", "healed: second"}; !slices.Equal(got, want) {
		t.Errorf("reported %q, want %q", got, want)
	}
}

// States that no member holds any more are passed over at once, with a warning if they end an epoch.
func TestLostDueStatesAreReported(t *testing.T) {
	one, events := leading(t)
	at := func(step int64) saved {
		return saved{step: step, member: "a",
			entry: checkpoint.Entry{Step: step, Manifest: checkpoint.Manifest{Step: step}}}
	}
	gone := saved{step: 200, member: "a", err: fmt.Errorf("fetching: %w", status.Error(codes.NotFound, "not here"))}
	say := func(in saved) {
		t.Helper()
		one.saver.busy = true
		if end, err := one.take(t.Context(), in); end || err != nil {
			t.Fatal(end, err)
		}
	}
	say(at(100)) // 100 steps are an epoch
	one.members.statuses["a"] = &proto.Status{Step: 400, Due: []*proto.HeldState{heldState(200, "x", 1),
		heldState(300, "y", 1)}}
	later := time.Now().Add(time.Hour)
	one.saver.after = later // there is no member to fetch from here
	say(gone)
	if _, step, _, ok := one.saver.offer(time.Now()); !ok || step != 300 || one.saver.after != later {
		t.Errorf("step %d is on offer, asked for after %v; want 300, at once", step, one.saver.after)
	}
	say(at(300))
	say(at(400))
	if got := events.warnings(); len(got) != 1 || !strings.Contains(got[0], "1 epochs ended") {
		t.Errorf("reported %q", got)
	}
}

func heldState(step int64, hash string, generation int64) *proto.HeldState {
	sum := sha256.Sum256([]byte(hash))
	return &proto.HeldState{Step: step, Sha256: sum[:], Generation: generation}
}
