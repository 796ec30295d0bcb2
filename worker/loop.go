package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"evenweave"
	"evenweave/internal/cluster"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
	"evenweave/proto"
)

// Views shows the cluster's records, and signals changes.
type Views interface {
	View() (cluster.View, <-chan struct{})
}

// Loop trains one member through all the worlds that use it. Its parts are set once, before Run.
type Loop struct {
	ID          string
	Job         job.Job
	Model       evenweave.Model
	Data        evenweave.Data
	MetricNames []string // of the sums that the model's Gradients reports
	Parallelism int
	Views       Views
	Connect     Connect
	Fetch       fetcher
	// Retain closes the connections to processes at other addresses; nil: there are none.
	Retain func(addresses []string)
	// Leave asks the cluster for a world without this member.
	Leave func()
	// Authorize returns an error unless the caller of a served method may read states. nil: every caller may.
	Authorize func(ctx context.Context) error
	// Stay: wait after the job's end until ctx is over, instead of returning.
	Stay bool
	// CatchUpFrom: states of so many bytes and more are fetched before a world uses this member; 0: the default.
	CatchUpFrom int64
	Observer    Observer // may be nil
	Log         *slog.Logger

	replica   *replica
	report    *report
	pauses    pauseDetector
	stepTimes stepTimes
	sampler   *schedule.Sampler
	lanes     []*lane
	buffer    *buffer        // of all generations, one after the other
	sealing   sync.WaitGroup // hashes of due states, copies for spares

	ahead      *ahead   // memory for the next catch-up; nil: none
	catching   *catchUp // nil: none
	tries      int      // to catch up, in generation triedIn
	triedIn    int64
	triedSince time.Time
	received   bool             // a state, or it was in a world, since then
	turns      int              // tries in all: each with another member
	pausing    <-chan time.Time // until the next try; nil: not
	unused     bool             // it has caught up, and no world has used it
}

// errWorldChanged ends a generation that a newer world has replaced without waiting for its step.
var errWorldChanged = errors.New("a newer world has been published")

// Init prepares the loop; the Member service may serve from then on. It returns an error if the model's tensors are
// invalid.
func (l *Loop) Init() (err error) {
	if l.replica, err = newReplica(l.Job, l.Model); err != nil {
		return err
	}
	l.report = newReport(l.ID, l.Job.UUID)
	if l.CatchUpFrom == 0 {
		l.CatchUpFrom = state.Large
	}
	l.replica.large = l.large()
	if l.large() { // until Run knows better: a world must not use this member before it has decided
		l.report.status.Phase = phaseCatchUp
	}
	if l.Observer == nil {
		l.Observer = unobserved{}
	}
	plan := l.Job.Spec.Plan()
	l.sampler = schedule.NewSampler(plan)
	l.buffer = newBuffer(l.replica.blocks, l.replica.layout.Summed(), len(l.MetricNames), plan)
	l.replica.updates.room.words = len(l.buffer.words)
	l.stepTimes.size = l.replica.layout.Size
	l.buffer.reset() // so that the system gives its memory now, and not in this member's first step
	for range max(1, min(l.Parallelism, plan.MicroBatches())) {
		flat := make([]float32, l.replica.layout.Summed())
		clear(flat) // likewise
		l.lanes = append(l.lanes, &lane{
			batch: evenweave.Batch{Samples: make([]int32, plan.MicroBatch)}, flat: flat,
			grads: l.replica.layout.Split(flat),
		})
	}
	if view, _ := l.Views.View(); l.large() && l.joins(view) {
		l.ahead = newAhead(context.Background(), l.replica) // the world trains, and is not to wait for memory later
	}
	for len(l.replica.scratch) < len(l.lanes) {
		l.replica.scratch = append(l.replica.scratch, make([]byte, state.FingerprintBlock))
	}
	return nil
}

// Run returns nil when the job is done or this member has left, and an error when it cannot go on: the job failed or is
// gone. When leaving is closed, the member finishes its step, waits for a world without it, and returns.
func (l *Loop) Run(ctx context.Context, leaving <-chan struct{}) error {
	beating, stop := context.WithCancel(ctx)
	defer stop()
	go l.pauses.run(beating)
	defer l.replica.end()
	defer l.replica.updates.end()
	defer l.sealing.Wait()
	defer func() { l.catching.stop() }()

	first, _ := l.Views.View() // a dismissal in it is of an earlier process with this id
	generation := int64(0)     // the newest that this member has been through
	left := false
	for {
		view, changed := l.Views.View()
		l.Observer.Saw(len(view.Skipped), view.OtherProtocol())
		due, acknowledged := l.replica.outstanding() // the other members may lack the due states
		world := view.World
		l.catchesUp(ctx, view, left)
		switch {
		case view.Job == nil && view.Revision != 0:
			return fmt.Errorf("job %s is not in etcd any more: its data was lost or deleted; start the coordinator "+
				"again on its directory to go on from the newest checkpoint", l.Job.UUID)
		case view.Job != nil && view.Job.UUID != l.Job.UUID:
			return fmt.Errorf("fenced: this worker belongs to job %s, etcd now holds job %s; start it again to join "+
				"that one", l.Job.UUID, view.Job.UUID)
		case view.Job != nil && view.Job.Numerics != "" && l.refused(view):
			return l.otherNumerics(view)
		case view.Done != nil && view.Done.Failure != "":
			return fmt.Errorf("the job failed: %s", view.Done.Failure)
		case view.Done != nil && (left || !l.Stay):
			l.report.set(func(s *proto.Status) { s.Phase = phaseFinished })
			l.Log.Info("the job is done", "step", view.Done.Step, "complete", view.Done.Complete, "checkpoint",
				view.Done.Checkpoint)
			return nil
		case left && (world == nil || world.Rank(l.ID) < 0) && due == 0 && l.released(view):
			l.replica.updates.drain(ctx, lastWords)
			l.Log.Info("left", "generation", generation)
			return nil
		case l.dismissed(first.World, world) != "":
			return &Unfit{"this member is dismissed: " + l.dismissed(first.World, world) + "; check this machine, " +
				"and its network to the others"}
		case view.Done == nil && world != nil && world.Generation > generation && world.Rank(l.ID) >= 0 &&
			!l.catching.awaited(world):
			generation = world.Generation
			if view.Job != nil {
				l.replica.reschedule(*view.Job)
			}
			l.replica.recorded(world.DurableStep)
			if err := l.generation(ctx, *world, leaving, &left); err != nil {
				return err
			}
			continue
		}
		l.rest(world)
		arrivals, turned := l.catching.next()
		select {
		case a, ok := <-arrivals:
			l.takeNext(a, ok)
		case <-turned:
		case <-l.pausing:
			l.pausing = nil
		case <-changed:
		case <-acknowledged:
		case <-leaving:
			leaving, left = nil, true
			l.Leave()
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Second):
			l.Log.Info("still " + l.phaseNow())
		}
	}
}

// released reports whether no world may count on this member's state: it has none, or the cluster holds its request to
// leave. A member that was cut off sees old worlds, and a newer one may include it again.
func (l *Loop) released(view cluster.View) bool {
	m, _ := view.Member(l.ID)
	return m.Leaving || !l.replica.counts()
}

// dismissed says why the world ends this member, if it does.
func (l *Loop) dismissed(first, world *job.World) string {
	if world == nil || first != nil && world.Generation <= first.Generation {
		return ""
	}
	return job.Clean(world.Dismissed[l.ID])
}

// rest reports why this member does not train now.
func (l *Loop) rest(world *job.World) {
	phase := phaseSpare
	if world == nil || world.Rank(l.ID) < 0 {
		l.replica.partial.Store(nil) // no opening goes on with it
	}
	if s, _ := l.report.read(0); s.Holding {
		phase = phaseHolding
	} else if world != nil && world.Rank(l.ID) >= 0 {
		phase = phaseWaiting
	} else if l.catching != nil && !l.catching.ready || l.pausing != nil {
		phase = phaseCatchUp
	}
	l.report.progressed(restingLimit)
	if phase != l.phaseNow() {
		l.report.set(func(s *proto.Status) { s.Phase = phase })
		l.Observer.Rested(phase)
	}
}

func (l *Loop) phaseNow() string {
	s, _ := l.report.read(0)
	return s.Phase
}

// generation trains in one world. Only what ends this member is returned: a broken collective is reported and survived.
func (l *Loop) generation(ctx context.Context, world job.World, leaving <-chan struct{}, left *bool) error {
	l.replica.updates.enters(world.Generation)
	l.unused, l.received = false, true
	if l.catching != nil && !l.replica.unproved { // there is no time for the whole state
		l.stopCatchUp()
	}
	l.ahead = nil
	defer func() { l.catching.stop(); l.catching = nil }()
	rank := world.Rank(l.ID)
	log := l.Log.With("generation", world.Generation, "rank", rank, "size", world.Size())
	log.Info("entering the world", "members", world.IDs(), "reason", world.Reason)
	l.report.set(func(s *proto.Status) {
		s.Generation, s.Accusation, s.Holding, s.Held, s.Fingerprint, s.Verdict, s.Phase = world.Generation, nil, false,
			nil, "", "", phaseConnect
	})
	l.report.among(world.Size())
	l.report.event("world", fmt.Sprintf("generation %d, rank %d of %d: %s", world.Generation, rank, world.Size(),
		world.Reason))

	if l.catching != nil {
		l.stepTimes.said = time.Duration(l.catching.stepNanos.Load())
	}
	deadlines := l.stepTimes.deadlines(world.Backoff)
	l.report.progressed(trainingLimit * deadlines.Step)
	l.Observer.Entered(world, rank)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		l.watch(ctx, world, leaving, left, cancel)
	}()
	defer func() { cancel(nil); <-watching }()

	l.retain(world)
	connecting, done := context.WithTimeoutCause(ctx, deadlines.Connect, errDeadline)
	ring, err := l.Connect(connecting, world, rank)
	done()
	if err != nil {
		return l.ended(ctx, world, log, err)
	}
	g := l.enter(world, rank, ring, log)
	holding, err := g.train(ctx)
	var verdict *Verdict
	if err != nil && !errors.As(err, &verdict) {
		ring.Abort(err)
		if _, ok := errors.AsType[*Unfit](err); ok {
			return err
		}
		return l.ended(ctx, world, log, err)
	}
	// Every rank comes here by the same step. A neighbour may still be receiving what this rank sent: do not break its
	// ring.
	closing, done := context.WithTimeout(ctx, deadlines.Step)
	defer done()
	if err := ring.Close(closing); err != nil { // a neighbour that missed the end of the step will catch up
		log.Warn("closing the ring", "err", err)
	}
	if verdict != nil {
		log.Error("verdict", "err", verdict)
		l.report.event("verdict", verdict.Message)
		l.report.set(func(s *proto.Status) { s.Verdict, s.Phase = verdict.Message, phaseHolding })
		return nil // the coordinator records it for all, and Run reads that
	}
	if holding {
		return l.hold(ctx, world, log)
	}
	return nil
}

// retain closes the connections to processes outside a world, but the one to a member from which this one still takes
// the last step before it.
func (l *Loop) retain(w job.World) {
	if l.Retain == nil {
		return
	}
	addresses := []string{w.Coordinator}
	for _, p := range w.Peers {
		addresses = append(addresses, p.Address)
	}
	if l.catching != nil {
		addresses = append(addresses, l.catching.from.Address)
	}
	l.Retain(addresses)
}

// hold reports that this member has nothing left to compute and serves its state.
func (l *Loop) hold(ctx context.Context, world job.World, log *slog.Logger) error {
	fingerprint := l.replica.expected.String() // the last exchange has found it unchanged
	last, err := l.replica.at(ctx, l.replica.step)
	if err != nil {
		return l.ended(ctx, world, log, err)
	}
	l.sealing.Wait() // report this state after the due ones: a coordinator that knows only this one skips them
	held := &proto.HeldState{Step: l.replica.step, Sha256: last.SHA256[:], Generation: world.Generation}
	log.Info("holding the state", "step", l.replica.step, "fingerprint", fingerprint)
	l.report.set(func(s *proto.Status) {
		s.Holding, s.Held, s.Fingerprint, s.Phase = true, held, fingerprint, phaseHolding
	})
	return nil
}

// enter prepares a generation.
func (l *Loop) enter(world job.World, rank int, ring Collective, log *slog.Logger) *generation {
	plan, layout := l.Job.Spec.Plan(), l.replica.layout
	mean := l.lanes[0].flat // nothing computes gradients while there is a mean
	return &generation{
		world: world, rank: rank, ring: ring, replica: l.replica, sampler: l.sampler, data: l.Data,
		names:      names{func(i int) string { return probe.ElementName(layout, i) }, l.MetricNames},
		assignment: schedule.Even(plan.MicroBatches(), world.Size()), buffer: l.buffer.of(world.Size()),
		lanes: l.lanes, flatMean: mean, mean: layout.Split(mean), stepTimes: &l.stepTimes, report: l.report,
		observer: l.Observer,
		fetch:    l.Fetch, log: log, sealing: &l.sealing, catching: l.catching,
		newer: func() bool {
			v, _ := l.Views.View()
			return v.World != nil && v.World.Generation > world.Generation
		},
		leader: func() string {
			if v, _ := l.Views.View(); v.Leader != nil {
				return v.Leader.Address
			}
			return world.Coordinator
		},
	}
}

// watch cancels the generation when a published world does not wait for its step, and passes on the request to leave.
func (l *Loop) watch(ctx context.Context, world job.World, leaving <-chan struct{}, left *bool,
	cancel context.CancelCauseFunc) {
	for {
		view, changed := l.Views.View()
		l.Observer.Saw(len(view.Skipped), view.OtherProtocol())
		if w := view.World; w != nil && w.Generation > world.Generation && w.Since > world.Generation {
			cancel(fmt.Errorf("%w: generation %d, %s", errWorldChanged, w.Generation, w.Reason))
			return
		}
		if view.Job == nil && view.Revision != 0 || view.Job != nil && view.Job.UUID != l.Job.UUID {
			cancel(errors.New("the job's record is gone from etcd"))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-leaving:
			leaving, *left = nil, true
			l.Leave()
		case <-changed:
		}
	}
}

// ended interprets the error that ended a generation, and reports it.
func (l *Loop) ended(ctx context.Context, world job.World, log *slog.Logger, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if !errors.Is(cause, errWorldChanged) {
			return nil // Run finds the reason in the view or in its context
		}
		log.Info("generation over", "reason", cause)
		l.report.event("world changed", cause.Error())
		return nil
	}
	a := accuse(err, world)
	a.Step, a.WaitedNanos = l.replica.step, max(a.WaitedNanos, 0)
	a.Paused = l.pauses.stalled(time.Now())
	log.Warn("generation over", "step", a.Step, "suspect", a.Suspect, "kind", a.Kind, "phase", a.Phase, "waited",
		time.Duration(a.WaitedNanos), "paused", a.Paused, "err", err)
	guard.Log(log, err)
	l.report.event("collective failed", err.Error())
	l.Observer.Broken(a.Kind)
	l.report.set(func(s *proto.Status) { s.Accusation, s.Phase = a, phaseWaiting })
	return nil
}

// unobserved is the observer of a member without one.
type unobserved struct{}

func (unobserved) Entered(job.World, int)       {}
func (unobserved) Rested(string)                {}
func (unobserved) Committed(*proto.Commit, int) {}
func (unobserved) Broken(string)                {}
func (unobserved) Healed()                      {}
func (unobserved) Repeated()                    {}
func (unobserved) Saw(int, int)                 {}
func (unobserved) Panicked()                    {}
