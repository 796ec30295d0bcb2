package local_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"evenweave/coordinator"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/proto"
	"evenweave/worker"
)

// receiving is a model that waits for a gate when it first receives a state, as if that took long to arrive.
type receiving struct {
	*example.Softmax
	begun, gate chan struct{}
	states      *atomic.Int64 // received
}

func (m receiving) Write(tensor int, offset int64, p []byte) error {
	if m.states.Add(1) == 1 {
		close(m.begun)
		<-m.gate
	}
	return m.Softmax.Write(tensor, offset, p)
}

// begins lets the others take steps until the model receives a state.
func (m receiving) begins(t *testing.T, e *events, allowed *allowed) {
	t.Helper()
	for wait := 100 * time.Millisecond; !over(m.begun) && wait < deadline; wait *= 2 {
		step := allowed.step() + 1
		allowed.upTo(step) // the others copy the state when they commit a step, if it is asked for by then
		await(t, e, "a step", func(s progress.Step) bool { return int64(s.Step) >= step })
		select {
		case <-m.begun:
		case <-time.After(wait):
		}
	}
}

// TestStepsGoOnWhileAJoinerFetchesTheState: however long that takes. It enters the world with the state that the others
// have, without fetching it again.
func TestStepsGoOnWhileAJoinerFetchesTheState(t *testing.T) {
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, t.TempDir(), spec(endless))
	allowed := newAllowed()
	allowed.upTo(10)
	a, b := startWorker(endpoint, "a", gated(allowed.wait)), startWorker(endpoint, "b", gated(allowed.wait))
	await(t, c.events, "both in the world", func(w progress.World) bool { return w.Size == 2 })

	m := receiving{example.NewSoftmax(), make(chan struct{}), make(chan struct{}), new(atomic.Int64)}
	opened := func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: m, Data: gatedPoints{example.Points{}, allowed.wait}, Numerics: golden}, nil
	}
	joiner := hire(endpoint, "joiner", false, opened, func(cfg *worker.Config) { cfg.CatchUpFrom = 1 })
	spare := member(t, endpoint, "joiner")
	m.begins(t, c.events, allowed)
	first := allowed.step()
	for step := first + 1; step <= first+3; step++ {
		allowed.upTo(step)
		await(t, c.events, "a step while the state arrives",
			func(s progress.Step) bool { return int64(s.Step) >= step })
	}
	close(m.gate)
	for step := allowed.step(); ; step++ {
		allowed.upTo(step)
		if s := spare.has(t, step); s.Generation > 0 {
			break
		}
	}
	w := await(t, c.events, "three in the world", func(w progress.World) bool { return w.Size == 3 })
	if n := m.states.Load(); n != 1 {
		t.Errorf("the joiner has written %d states, want one: it has fetched again in world %+v", n, w)
	}
	close(c.halt)
	until(t, "the coordinator halts", func() bool {
		allowed.upTo(allowed.step() + 1)
		return over(c.over)
	})
	ended(t, "coordinator", c.done, coordinator.ErrHalted)
	for name, h := range map[string]*hired{"a": a, "b": b, "joiner": joiner} {
		ended(t, name, h.done, nil)
	}
	d := await(t, c.events, "the end", anyOf[progress.Done])
	if want := calmRun(t, int64(d.Step)); d.Fingerprint != want.Fingerprint {
		t.Errorf("ended with %+v, a calm run with %+v", d, want)
	}
}

func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// allowed is up to which step the workers may go.
type allowed struct {
	at      atomic.Int64
	changed chan chan struct{}
}

func newAllowed() *allowed {
	a := &allowed{changed: make(chan chan struct{}, 1)}
	a.changed <- make(chan struct{})
	return a
}

func (a *allowed) step() int64 { return a.at.Load() }

func (a *allowed) upTo(step int64) {
	before := <-a.changed
	a.at.Store(max(a.at.Load(), step))
	close(before)
	a.changed <- make(chan struct{})
}

// wait is the gate before the step that follows so many.
func (a *allowed) wait(step int64) {
	for {
		changed := <-a.changed
		a.changed <- changed
		if step < a.at.Load() {
			return
		}
		<-changed
	}
}

// until asks again and again whether something has happened.
func until(t *testing.T, what string, happened func() bool) {
	t.Helper()
	limit := time.After(deadline)
	for !happened() {
		select {
		case <-time.After(time.Millisecond):
		case <-limit:
			t.Fatalf("%s: it has not happened", what)
		}
	}
}

// asked is a member that answers what it does.
type asked struct {
	proto.MemberClient
	job string
}

// member waits for a member to be registered.
func member(t *testing.T, endpoint, id string) (a asked) {
	t.Helper()
	client, err := cluster.Dial([]string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	until(t, id+" is registered", func() bool {
		view, err := client.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, found := view.Member(id)
		if !found {
			return false
		}
		conn, err := grpc.NewClient(m.Address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		a = asked{proto.NewMemberClient(conn), view.Job.UUID}
		return true
	})
	return a
}

// has waits until the member has a state of at least that step, and is in a world or stands where the others do.
func (a asked) has(t *testing.T, step int64) (s *proto.Status) {
	t.Helper()
	until(t, "the joiner has the state", func() bool {
		var err error
		if s, err = a.Probe(t.Context(), &proto.ProbeRequest{Job: a.job}); err != nil {
			t.Fatal(err)
		}
		return s.Step >= step && (s.Generation > 0 || s.Phase != policy.PhaseCatchUp)
	})
	return s
}

// TestAJoinerCatchesUpOverTLS: each end proves the key that is registered of it. The members may have to read the
// joiner's record first.
func TestAJoinerCatchesUpOverTLS(t *testing.T) {
	s := startSecured(t, 400)
	want := calmRun(t, s.steps)
	allowed := newAllowed()
	allowed.upTo(10)
	gate := func(c *worker.Config) { c.Open = gated(allowed.wait) }
	s.hire("a", time.Hour, gate)
	s.hire("b", time.Hour, gate)
	await(t, s.events, "both in the world", func(w progress.World) bool { return w.Size == 2 })

	m := receiving{example.NewSoftmax(), make(chan struct{}), make(chan struct{}), new(atomic.Int64)}
	s.hire("joiner", time.Hour, func(c *worker.Config) {
		c.CatchUpFrom = 1
		c.Open = func(context.Context, job.Job) (worker.Opened, error) {
			return worker.Opened{Model: m, Data: gatedPoints{example.Points{}, allowed.wait}, Numerics: golden}, nil
		}
	})
	m.begins(t, s.events, allowed)
	operator := s.authority.over("operator", security.Operator, "test")
	if w := records(t, operator, s.endpoint()).World; !over(m.begun) || w.Rank("joiner") >= 0 {
		t.Errorf("world %d uses the joiner before it has a state", w.Generation)
	}
	close(m.gate)
	within := time.Now().Add(deadline)
	for step := allowed.step(); records(t, operator, s.endpoint()).World.Rank("joiner") < 0; {
		if time.Now().After(within) || step == s.steps-1 {
			t.Fatalf("no world uses the joiner by step %d", step)
		}
		step++
		allowed.upTo(step)
		await(t, s.events, "a step", func(e progress.Step) bool { return int64(e.Step) >= step })
	}
	if n := m.states.Load(); n != 1 {
		t.Errorf("the joiner has written %d states, want one", n)
	}
	allowed.upTo(s.steps)
	s.finish(want)
}
