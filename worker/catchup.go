package worker

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	// catchUpFrom is the size of a state from which on a spare fetches it before it is admitted. Smaller ones are there
	// in less than the time of a short step.
	catchUpFrom  = 32 << 20
	catchUpQuiet = 2 * time.Minute  // a try ends after so long without a state, a step or a part of one
	catchUpCopy  = 10 * time.Minute // signs of life count too for so long, while the other member copies its state
	catchUpTries = 3                // in one generation, or without a state; then the spare enters a world as it is
	catchUpPause = time.Second      // before the next try, if the other member refuses this one
	lastStep     = time.Second      // a world's first exchange waits for the last step for so long
	catchUpStays = 30 * time.Second // a spare that has caught up goes on for so long while no world uses it
)

// catchUp fetches a state for a spare, and the steps since, from a member of the world, which trains on meanwhile. The
// loop, to which the replica belongs, takes what arrives.
type catchUp struct {
	from     job.Peer
	keys     []string     // that it has registered
	total    int64        // steps of the job
	watchdog *time.Timer  // set before the other member is asked
	arrivals chan arrival // closed at the end; err says why
	seen     atomic.Pointer[position]
	turned   chan struct{} // signals that the other member leaves its generation
	memory   chan []int64  // for the words of one update: the loop gives it back
	parts    atomic.Int64  // that have arrived
	owed     int64         // the step of which it is not known yet what it has led to; 0: none
	early    *proto.Update // that, if it came among the step's words
	cancel   context.CancelFunc
	err      error

	// The loop's:
	ready bool      // this member has the state of the other one's step
	since time.Time // when it first had
}

// arrival is a state, an update, the state that the update before has led to, or only the step at which the other
// member stands.
type arrival struct {
	state  *state.State
	update *update
	led    *ledTo
	newest int64
	asked  bool // newest is the answer to a question, and not what the other member said some time ago
}

// ledTo is what a step has led to.
type ledTo struct {
	step        int64
	fingerprint state.Fingerprint
}

// position is where the other member trains.
type position struct {
	generation int64
	last       int64 // the step after which it leaves; 0: not known
}

// startCatchUp begins to catch up with a member of the world; another one at each try.
func (l *Loop) startCatchUp(ctx context.Context, w *job.World) {
	c := &catchUp{from: l.source(w), arrivals: make(chan arrival), turned: make(chan struct{}, 1),
		memory: make(chan []int64, 1)}
	c.keys, c.total = w.Keys[c.from.ID], l.replica.job.Spec.TotalSteps()
	l.Log.Info("catching up before a world uses this member", "with", c.from.ID, "generation", w.Generation)
	if l.triedSince.IsZero() {
		l.triedSince = time.Now()
	}
	l.tries++
	l.turns++
	ctx, c.cancel = context.WithCancel(ctx)
	l.catching = c
	go func() {
		defer close(c.arrivals)
		c.err = c.run(ctx, l.Fetch, l.Job.UUID, l.replica)
	}()
}

// source is the member to catch up with. Spares choose different ones.
func (l *Loop) source(w *job.World) job.Peer {
	h := fnv.New32a()
	_, _ = h.Write([]byte(l.ID))
	return w.Peers[(int(h.Sum32()%1024)+l.turns)%w.Size()]
}

// stop ends the catch-up, if there is one.
func (c *catchUp) stop() {
	if c == nil {
		return
	}
	c.cancel()
	for range c.arrivals {
	}
}

// run receives until something fails.
func (c *catchUp) run(ctx context.Context, f fetcher, uuid string, r *replica) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.watchdog = time.AfterFunc(catchUpQuiet, func() { cancel(errCatchUpQuiet) })
	defer c.watchdog.Stop()
	next, err := f.Updates(ctx, c.from.Address, c.keys, uuid)
	if err != nil {
		return err
	}
	words := make([]int64, r.blocks.Words()+r.blocks.Count())
	clear(words) // so that the system gives its memory now, and not while the others wait for this member
	c.memory <- words
	receive := func() (*proto.Update, error) {
		u, err := next()
		if err != nil && context.Cause(ctx) != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && u.Generation > 0 {
			p := position{generation: u.Generation}
			if u.Changing {
				p.last = u.Step
			}
			c.sees(p)
		}
		return u, err
	}
	s, err := c.state(ctx, f, uuid, receive)
	if err != nil {
		return err
	}
	have, a := s.Step, arrival{state: s, newest: s.Step + 1} // at least one more step follows
	for s = nil; err == nil; a, err = c.step(ctx, r, receive) {
		if a.update != nil {
			have = a.update.step
		}
		// a sign of life alone is no step
		moves := a.state != nil || a.update != nil || a.led != nil || have >= a.newest
		applied := a.state == nil && a.update == nil // the loop takes this after it has applied what was before
		if err := c.hand(ctx, a, moves); err != nil {
			return err
		}
		if a = (arrival{}); !applied {
			continue
		}
		newest, failed := f.Newest(ctx, c.from.Address, c.keys, uuid)
		if failed != nil { // asked again after the next step or sign of life
			continue
		}
		if err := c.hand(ctx, arrival{newest: newest, asked: true}, have >= newest); err != nil {
			return err
		}
	}
	return err
}

// hand gives the loop an arrival.
func (c *catchUp) hand(ctx context.Context, a arrival, moves bool) error {
	if moves {
		c.watchdog.Stop() // the loop may be busy
		defer c.watchdog.Reset(catchUpQuiet)
	}
	select {
	case c.arrivals <- a:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errCatchUpQuiet = fmt.Errorf("nothing has come for %v", catchUpQuiet)

// sees records where the other member is, and wakes the loop if it leaves its generation.
func (c *catchUp) sees(p position) {
	before := c.seen.Load()
	if before != nil && before.generation == p.generation {
		p.last = max(p.last, before.last) // a sign of life does not say it
	}
	c.seen.Store(&p)
	if p.last > 0 || before != nil && before.generation != p.generation {
		select {
		case c.turned <- struct{}{}:
		default:
		}
	}
}

// state fetches the state that the other member names first.
func (c *catchUp) state(ctx context.Context, f fetcher, uuid string, receive func() (*proto.Update, error)) (
	*state.State, error) {
	first, began := &proto.Update{}, time.Now()
	for first.High == 0 && first.Low == 0 {
		var err error
		if first, err = receive(); err != nil {
			return nil, err
		}
		if time.Since(began) < catchUpCopy {
			c.watchdog.Reset(catchUpQuiet)
		}
	}
	if first.Step < 0 || first.Step > c.total {
		return nil, fmt.Errorf("a state of step %d: this job has %d", first.Step, c.total)
	}
	s, err := f.Fetch(ctx, Wanted{Job: uuid, Step: first.Step, Peers: []string{c.from.Address}, Quiet: catchUpQuiet,
		Keys: map[string][]string{c.from.Address: c.keys}, Quick: true, // that member announces the fingerprint, too
		Gone: func(err error) bool { return status.Code(err) == codes.NotFound || security.OtherKey(err) },
		Arrived: func(blocks int) {
			c.parts.Store(int64(blocks))
			c.watchdog.Reset(catchUpQuiet)
		}})
	if err != nil {
		return nil, err
	}
	if found, announced := s.Fingerprint(), (state.Fingerprint{Hi: first.High, Lo: first.Low}); found != announced {
		return nil, fmt.Errorf("the state of step %d has fingerprint %s, it announced %s", first.Step, found, announced)
	}
	return s, nil
}

// step receives an update, what one has led to, or the step at which the other member stands.
func (c *catchUp) step(ctx context.Context, r *replica, receive func() (*proto.Update, error)) (arrival, error) {
	head := c.early
	if c.early = nil; head == nil {
		var err error
		if head, err = receive(); err != nil {
			return arrival{}, err
		}
		c.parts.Add(1)
	}
	if head.Step == 0 {
		return arrival{newest: head.Newest}, nil
	}
	found := state.Fingerprint{Hi: head.High, Lo: head.Low}
	if leads := found != (state.Fingerprint{}); leads != (c.owed != 0) || leads && head.Step != c.owed {
		return arrival{}, fmt.Errorf("step %d with fingerprint %s has come; it is not known what step %d (0: none) "+
			"has led to", head.Step, found, c.owed)
	} else if leads {
		c.owed = 0
		return arrival{led: &ledTo{head.Step, found}, newest: head.Newest}, nil
	}
	u := &update{step: head.Step, skipped: head.Skipped, weight: head.Weight}
	for _, s := range head.Samples {
		u.samples = append(u.samples, int32(s)-1)
	}
	if c.owed = head.Step; !u.skipped {
		if err := c.words(ctx, u, r, receive); err != nil {
			return arrival{}, err
		}
	}
	return arrival{update: u, newest: head.Newest}, nil
}

// words receives an update's words. What it has led to may come among them.
func (c *catchUp) words(ctx context.Context, u *update, r *replica, receive func() (*proto.Update, error)) error {
	w := &proto.Words{Exponents: make([]int32, r.blocks.Count())}
	select {
	case w.Words = <-c.memory:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for !w.Complete() {
		part, err := receive()
		if err == nil && part.Step != 0 && c.early == nil {
			c.early = part
		} else if err == nil {
			err = w.Take(part.Words)
		}
		if err != nil {
			return err
		}
		c.parts.Add(1)
		c.watchdog.Reset(catchUpQuiet)
	}
	u.exponents, u.words = w.Exponents, w.Words
	return nil
}

// catchesUp decides whether this member, which no world uses, is to catch up, and begins or ends that. A member that
// has a state of a world keeps it: the others may need it.
func (l *Loop) catchesUp(ctx context.Context, view cluster.View, left bool) {
	w := view.World
	if w == nil || w.Generation != l.triedIn {
		if l.triedIn = 0; l.received { // tries that brought nothing still count: they must come to an end
			l.tries, l.triedSince, l.received = 0, time.Time{}, false
		}
		if w != nil {
			l.triedIn = w.Generation
		}
	}
	spare := l.large() && !l.replica.counts() && !left && !l.unused && view.Done == nil && w != nil && !w.Halt &&
		w.Size() > 0 && w.Size() < l.Job.Spec.Plan().MicroBatches() && w.Rank(l.ID) < 0
	switch c := l.catching; {
	case c == nil && !spare:
		l.pausing = nil
	case c == nil && l.tries < catchUpTries && l.pausing == nil:
		if view.Job != nil { // it may have been extended
			l.replica.reschedule(*view.Job)
		}
		l.startCatchUp(ctx, w)
	case c != nil && w != nil && w.Rank(l.ID) < 0 && (!spare || w.Rank(c.from.ID) < 0):
		l.stopCatchUp()
	case c != nil && c.ready && time.Since(c.since) > catchUpStays && w.Rank(l.ID) < 0:
		l.unused = true
		l.stopCatchUp()
	}
}

// large reports whether states are fetched before admission.
func (l *Loop) large() bool { return l.replica.layout.Size >= l.CatchUpFrom }

func (l *Loop) stopCatchUp() {
	l.catching.stop()
	l.catching = nil
}

// next returns what arrives, and signals that the other member leaves its generation; nil without a catchUp.
func (c *catchUp) next() (<-chan arrival, <-chan struct{}) {
	if c == nil {
		return nil, nil
	}
	return c.arrivals, c.turned
}

// awaited reports whether this member, which a planned world uses, waits for the last step of the world before: the
// others enter after it.
func (c *catchUp) awaited(w *job.World) bool {
	if c == nil || !c.ready {
		return false
	}
	at := c.seen.Load()
	return at != nil && at.generation >= w.Since && at.generation < w.Generation && at.last == 0
}

// takeNext takes an arrival; false: nothing more comes.
func (l *Loop) takeNext(a arrival, ok bool) {
	c := l.catching
	var err error
	if ok {
		err = c.take(a, l.replica, l.lanes[0].flat)
	} else {
		err = c.err
	}
	if !ok || err != nil {
		l.stopCatchUp()
		// A member that has not read this one's record yet refuses it too.
		later := status.Code(err) == codes.ResourceExhausted || security.OtherKey(err)
		if later && time.Since(l.triedSince) < catchUpQuiet {
			l.tries, l.pausing = l.tries-1, time.After(catchUpPause)
			return
		}
		l.Log.Warn("catching up has failed", "with", c.from.ID, "tried", l.tries, "of", catchUpTries, "err", err)
		l.reportStep()
		return
	}
	l.received = l.received || a.state != nil
	step, _, _ := l.replica.progress()
	// A step that the other one has taken since is on its way.
	c.ready = c.ready && step >= a.newest-1 || step >= a.newest && a.asked
	if c.ready && c.since.IsZero() {
		c.since = time.Now()
		l.Log.Info("caught up", "step", step, "with", c.from.ID)
	}
	if a.state != nil || a.update != nil {
		l.reportStep()
	}
}

// reportStep reports the step of a spare's state.
func (l *Loop) reportStep() {
	step, epochs, used := l.replica.progress()
	l.report.set(func(s *proto.Status) {
		s.Step = step
		s.Ledger = &proto.Ledger{Epoch: epochs, Used: int64(used), Samples: int64(l.Job.Spec.Samples)}
	})
}

// takeLast takes the last step before this world, which may be on its way still. The others wait in the exchange.
func (g *generation) takeLast() {
	r, up := g.replica, g.catching
	if up == nil || !r.known || !r.unproved {
		return
	}
	at, timeout := up.seen.Load(), time.After(lastStep)
	for at != nil && r.known && r.step < at.last {
		select {
		case a, ok := <-up.arrivals:
			if !ok || up.take(a, r, g.flatMean) != nil {
				return
			}
		case <-timeout:
			return
		}
	}
}

// advance takes the steps that this member lacks from the one that it has caught up with. false: they do not lead to
// the chosen state, or do not come.
func (g *generation) advance(c policy.Choice) bool {
	r, up := g.replica, g.catching
	if up == nil || g.fetching != nil || len(c.Holders) == 0 || !r.known || !r.unproved || r.step >= c.Step {
		return false
	}
	g.report.phase(phaseFetch)
	if parts := up.parts.Load(); parts != g.caught || g.moved.IsZero() {
		g.caught, g.moved = parts, time.Now()
	}
	err := errDeadline
	select {
	case a, ok := <-up.arrivals:
		if !ok {
			err = up.err
		} else {
			err = up.take(a, r, g.flatMean)
		}
	case <-time.After(fetchPoll):
		if time.Since(g.moved) < g.deadlines().Fetch {
			err = nil
		}
	}
	if err != nil {
		g.log.Warn("catching up has failed in the opening", "with", up.from.ID, "step", r.step, "err", err)
	}
	return err == nil
}
