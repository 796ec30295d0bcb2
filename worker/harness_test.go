package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/allreduce"
	"evenweave/allreduce/allreducetest"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
	"evenweave/proto"
)

// crew runs the real loops of several members in one process, in a synctest bubble: the crew replaces etcd and the
// coordinator, rings run in memory, time is virtual.
type crew struct {
	t   *testing.T
	job job.Job

	mu      sync.Mutex
	view    cluster.View
	changed chan struct{}
	links   map[int64][]allreducetest.Links
	states  map[int64]*state.State // what the coordinator has on disk
	members map[string]*hand
	alive   []string       // the last world's members
	backoff int            // of future worlds
	fresh   []string       // in future worlds
	data    evenweave.Data // of members that start from now on; nil: points, each slowly
	cutOff  bool           // no request to leave arrives
	parted  [2]string      // no stream opens from the first to the second
	large   time.Duration  // that a state takes to fetch from a member
	running sync.WaitGroup

	restores int                                     // of checkpoints
	fetches  int                                     // of states from members
	trickles string                                  // the member that gives each block just in time
	catchUp  bool                                    // members that start from now on catch up before they are used
	onUpdate func(from *hand, u *proto.Update) error // before an update is sent; it may change it
	refuses  error                                   // to say at which step a member is
	sips     time.Duration                           // that each word of a step takes after the first world; 0: none
	window   int                                     // updates that may be on their way
	size     int64                                   // of the state, for deadlines; 0: what it is
	enters   func(h *hand, generation int64)         // a member connects a world; its own goroutine calls this
}

// hand is one member and what a test may do to it.
type hand struct {
	*Loop
	model   *faulty
	cancel  context.CancelCauseFunc
	leaving chan struct{}
	ended   chan struct{}
	err     error // when it has ended
	counted
}

// counted is an observer that counts heals, and keeps what was seen last.
type counted struct {
	unobserved
	heals, repeated        int64
	skipped, otherProtocol int
}

func (c *counted) Saw(skipped, otherProtocol int) {
	c.skipped, c.otherProtocol = skipped, otherProtocol
}

func (c *counted) Healed() { c.heals++ }

func (c *counted) Repeated() { c.repeated++ }

// faulty is the tiny model with one fault at most.
type faulty struct {
	*example.Softmax
	poison func(b *evenweave.Batch, grad []float32) // changes a gradient
	skew   func(step int64) bool                    // whether this update goes wrong
	breaks func(step int64) error                   // an error leaves this update half done
	loss   func(b *evenweave.Batch) float64         // is added
	writes func()                                   // is called before the state is written
	reads  atomic.Int64
}

func (m *faulty) Write(tensor int, offset int64, p []byte) error {
	if m.writes != nil {
		m.writes()
	}
	return m.Softmax.Write(tensor, offset, p)
}

func (m *faulty) Read(tensor int, offset int64, p []byte) error {
	m.reads.Add(1)
	return m.Softmax.Read(tensor, offset, p)
}

func (m *faulty) Update(mean [][]float32, step int64) error {
	err := m.Softmax.Update(mean, step)
	if m.skew != nil && m.skew(step) {
		m.Weights()[3] += 1
	}
	if m.breaks != nil && err == nil {
		if err = m.breaks(step); err != nil {
			m.Weights()[3] += 1
		}
	}
	return err
}

func (m *faulty) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, err := m.Softmax.Gradients(b, grads)
	if m.poison != nil {
		m.poison(b, grads[0])
	}
	if m.loss != nil {
		sums.Loss += m.loss(b)
	}
	return sums, err
}

// delayed takes a virtual millisecond a micro-batch, so that a test can act between two steps.
type delayed struct {
	evenweave.Data
	before func(b *evenweave.Batch) // may change what is loaded, or block
}

func (d delayed) Load(b *evenweave.Batch) error {
	time.Sleep(time.Millisecond) // virtual: this is the work
	if d.before != nil {
		d.before(b)
	}
	return d.Data.Load(b)
}

func newCrew(t *testing.T, steps int64) *crew {
	j := job.Job{UUID: "job", Spec: job.Spec{Samples: 300, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1,
		Steps: steps}, CheckpointEvery: 5}
	c := &crew{t: t, job: j, changed: make(chan struct{}), links: map[int64][]allreducetest.Links{},
		members: map[string]*hand{}}
	c.view.Job = &j
	c.states = map[int64]*state.State{0: state.New(layoutOf(t, example.NewSoftmax()), j.Spec.Samples)}
	return c
}

func layoutOf(t *testing.T, m evenweave.Model) *state.Layout {
	t.Helper()
	layout, err := state.OfJob(m.Tensors())
	if err != nil {
		t.Fatal(err)
	}
	return layout
}

// View implements Views.
func (c *crew) View() (cluster.View, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view, c.changed
}

func (c *crew) change(f func(v *cluster.View)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.view)
	close(c.changed)
	c.changed = make(chan struct{})
}

// request records that a member asks to leave, unless it cannot reach the cluster.
func (c *crew) request(id string) {
	if c.cutOff {
		return
	}
	c.change(func(v *cluster.View) {
		v.Members = append(v.Members[:len(v.Members):len(v.Members)], job.Member{ID: id, Leaving: true})
	})
}

// publish makes these members the next world; planned: after the next commit.
func (c *crew) publish(planned bool, ids ...string) {
	c.change(func(v *cluster.View) {
		c.alive = ids
		w := job.World{Job: c.job.UUID, Generation: 1, Since: 1, Coordinator: "coordinator", Backoff: c.backoff,
			Fresh: c.fresh}
		if v.World == nil && c.large > 0 {
			w.Fresh = ids
		}
		if v.World != nil {
			w.Generation, w.Since = v.World.Generation+1, v.World.Generation+1
			if planned {
				w.Since = v.World.Generation
			}
		}
		for _, id := range ids {
			w.Peers = append(w.Peers, job.Peer{ID: id, Address: id})
		}
		links := make([]allreducetest.Links, len(ids))
		for i := range ids {
			links[i].Right, links[(i+1)%len(ids)].Left = allreducetest.Pipe(64, uint64(i), nil)
		}
		c.links[w.Generation] = links
		v.World = &w
	})
}

// connect implements Connect.
func (c *crew) connect(ctx context.Context, w job.World, rank int) (Collective, error) {
	if c.enters != nil {
		c.enters(c.member(w.Peers[rank].ID), w.Generation)
	}
	if self, other := c.parts(w, rank); other != "" {
		<-ctx.Done()
		edge := allreduce.Edge{Op: "connect", PeerID: other}
		return nil, &allreduce.Error{Kind: allreduce.Deadline, Edge: edge, Err: fmt.Errorf("%s: %w", self, ctx.Err())}
	}
	cfg := allreduce.Config{Job: w.Job, Generation: w.Generation, Rank: rank, Size: w.Size(), Members: w.IDs()}
	if w.Size() == 1 {
		return allreduce.New(cfg, nil, nil)
	}
	c.mu.Lock()
	l := c.links[w.Generation][rank]
	c.mu.Unlock()
	return allreduce.New(cfg, l.Left, l.Right)
}

func (c *crew) member(id string) *hand {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members[id]
}

// parts returns a member and the neighbour that it has no stream with, if any.
func (c *crew) parts(w job.World, rank int) (self, other string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := w.Size()
	self, right, left := w.Peers[rank].ID, w.Peers[(rank+1)%n].ID, w.Peers[(rank+n-1)%n].ID
	switch c.parted {
	case [2]string{self, right}:
		return self, right
	case [2]string{left, self}:
		return self, left
	}
	return self, ""
}

// kill ends all members.
func (c *crew) kill() {
	for _, h := range c.members {
		h.cancel(errKilled)
	}
	c.running.Wait()
}

// start runs a member until the job ends or the test does.
func (c *crew) start(id string, parallelism int, before func(*evenweave.Batch)) *hand {
	h := &hand{model: &faulty{Softmax: example.NewSoftmax()}, leaving: make(chan struct{}), ended: make(chan struct{})}
	data := c.data
	if data == nil {
		data = delayed{example.Points{}, before}
	}
	h.Loop = &Loop{
		ID: id, Job: c.job, Model: h.model, Data: data, MetricNames: example.Metrics(),
		Parallelism: parallelism, Views: c, Connect: c.connect,
		Fetch: c, Leave: func() { c.request(id) }, Observer: &h.counted, Log: slog.New(slog.DiscardHandler),
	}
	if c.catchUp {
		h.CatchUpFrom = 1
	}
	if err := h.Init(); err != nil {
		c.t.Fatal(err)
	}
	if c.size > 0 {
		h.stepTimes.size = c.size
	}
	if c.window == 0 { // a spare takes each message before the next one is sent
		h.replica.updates.hasState = 1
	}
	ctx, cancel := context.WithCancelCause(c.t.Context())
	h.cancel = cancel
	c.mu.Lock()
	c.members[id] = h
	c.mu.Unlock()
	c.running.Go(func() { h.err = h.Run(ctx, h.leaving); close(h.ended) })
	return h
}

// until waits for a member to have committed a step; virtual time passes.
func (h *hand) until(step int64) {
	for {
		s, changed := h.report.read(0)
		if s.Step >= step {
			return
		}
		select {
		case <-changed:
		case <-time.After(time.Millisecond / 4): // commits wake no reader
		}
	}
}

// finish waits until the members hold the final state, ends the job, and returns their common fingerprint.
func (c *crew) finish(ids ...string) state.Fingerprint {
	c.t.Helper()
	var fingerprint state.Fingerprint
	limit := time.Now().Add(5 * time.Minute)
	for waiting := true; waiting; {
		if time.Now().After(limit) {
			for id, h := range c.members {
				s, _ := h.report.read(0)
				c.t.Logf("%s: %v, ended with %v", id, s, h.err)
			}
			c.t.Fatalf("no end in sight; the world is %+v", c.view.World)
		}
		time.Sleep(10 * time.Millisecond) // virtual
		view, _ := c.View()
		waiting = false
		for _, id := range ids {
			s, _ := c.members[id].report.read(0)
			if s.Verdict != "" {
				c.t.Fatalf("%s: verdict: %s", id, s.Verdict)
			}
			if a := s.Accusation; a != nil && a.Kind != policy.KindWaiting && a.Generation == view.World.Generation {
				c.publish(false, c.alive...) // as a coordinator does if all are alive
				waiting = true
				break
			}
			waiting = waiting || !s.Holding || s.Generation != view.World.Generation
		}
	}
	for i, id := range ids {
		f, err := c.members[id].replica.fingerprint()
		if err != nil {
			c.t.Fatal(err)
		}
		if i > 0 && f != fingerprint {
			c.t.Errorf("%s ends with fingerprint %s, %s with %s", id, f, ids[0], fingerprint)
		}
		fingerprint = f
	}
	c.change(func(v *cluster.View) {
		v.Done = &job.Done{Job: c.job.UUID, Step: c.job.Spec.TotalSteps(), Complete: true}
	})
	c.running.Wait()
	return fingerprint
}

// calm is the fingerprint of an undisturbed run of one member.
func calm(t *testing.T, steps int64) (f state.Fingerprint) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.start("a", 1, nil)
		c.publish(false, "a")
		f = c.finish("a")
	})
	return f
}

var errKilled = errors.New("killed by the test")

// startFlipping starts a member in whose state one bit changes by itself, once, while it computes the step after the
// given one.
func (c *crew) startFlipping(id string, step int64) (h *hand) {
	flipped := false
	h = c.start(id, 1, func(b *evenweave.Batch) {
		if b.Step == step && !flipped {
			flipped = true
			v := &h.model.Weights()[3]
			*v = math.Float32frombits(math.Float32bits(*v) ^ 1)
		}
	})
	return h
}
