package worker

import (
	"context"
	"hash/fnv"
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

// startCatchUp begins to catch up with a member of the world; another one at each try.
func (l *Loop) startCatchUp(ctx context.Context, w *job.World) {
	c := &catchUp{from: l.source(w), arrivals: make(chan arrival), turned: make(chan struct{}, 1),
		memory: make(chan []int64, 1), ahead: l.ahead}
	l.ahead = nil
	c.keys, c.total = w.Keys[c.from.ID], l.replica.job.Spec.TotalSteps()
	l.Log.Info("catching up before a world uses this member", "with", c.from.ID, "generation", w.Generation)
	if l.triedSince.IsZero() {
		l.triedSince = time.Now()
	}
	l.tries++
	l.turns++
	if l.tries < catchUpTries && w.Size() > 1 {
		c.pace = catchUpPace << (2 * (l.tries - 1))
	}
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
	spare := l.large() && !l.replica.counts() && !left && !l.unused && l.joins(view)
	switch c := l.catching; {
	case c == nil && !spare:
		l.pausing, l.ahead = nil, nil
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

// joins reports whether this member, which the world does not use, may be in the next one.
func (l *Loop) joins(view cluster.View) bool {
	w := view.World
	return view.Done == nil && w != nil && !w.Halt && w.Size() > 0 && w.Size() < l.Job.Spec.Plan().MicroBatches() &&
		w.Rank(l.ID) < 0
}

// large reports whether states are fetched before admission.
func (l *Loop) large() bool { return l.replica.layout.Size >= l.CatchUpFrom }

func (l *Loop) stopCatchUp() {
	l.catching.stop()
	l.ahead = l.catching.ahead // if it was refused, the memory is not used yet
	if l.catching = nil; l.tries >= catchUpTries {
		l.ahead = nil
	}
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
	if a.failed != nil && !c.warned {
		c.warned = true
		l.Log.Warn("the other member does not say at which step it is: this one goes by what it said before", "of",
			c.from.ID, "err", a.failed)
	}
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
	if g.moved.IsZero() {
		g.advancing = time.Now()
	}
	if parts := up.parts.Load(); parts != g.caught || g.moved.IsZero() {
		g.caught, g.moved = parts, time.Now()
	}
	var err error
	select {
	case a, ok := <-up.arrivals:
		if !ok {
			err = up.err
		} else {
			err = up.take(a, r, g.flatMean)
		}
	case <-time.After(fetchPoll):
	}
	quiet, blocks := g.deadlines().Fetch, time.Duration(r.blocks.Words()*8/state.BlockSize)
	if late := time.Since(g.moved) > quiet || time.Since(g.advancing) > quiet+blocks*lastPace; err == nil && late &&
		r.step < c.Step {
		err = errDeadline
	}
	if err != nil {
		g.log.Warn("catching up has failed in the opening", "with", up.from.ID, "step", r.step, "err", err)
	}
	return err == nil
}
