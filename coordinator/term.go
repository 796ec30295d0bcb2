package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// errTermOver ends a term, not the coordinator: another may lead now, or etcd is away.
var errTermOver = errors.New("the term is over")

const tickEvery = 500 * time.Millisecond

// term is one stretch of leadership: one goroutine feeds facts to the policy and carries out its actions. What outlives
// it belongs to the Coordinator.
type term struct {
	records   records
	views     views
	policy    *policy.Policy
	members   *roster
	saver     *saver
	dialer    *dialer
	evaluator queue
	events    emitter
	page      page
	steps     *summary
	condition *health
	inputs    inbox
	tasks     *sync.WaitGroup
	halt      <-chan struct{}
	lost      func(uuid string) error // explains that etcd has lost the job
	log       *slog.Logger

	unwritten     time.Time // since when records cannot be written; zero: they can
	tried         time.Time // when one could not be written
	saidUnwritten bool      // to the user, since then

	uuid     string   // of the job, for its goroutines: the record itself belongs to the loop
	sealedBy []string // keys of this process, when it last wrote all records again
	halting  bool
	failure  string    // the policy's verdict on the job
	done     *job.Done // what the term has recorded as the job's end
}

// records is what a term writes to etcd, in transactions that fail once the term is over; *cluster.Term is one.
type records interface {
	PublishWorld(ctx context.Context, read cluster.View, w job.World) error
	ReplaceJob(ctx context.Context, read cluster.View, j job.Job) error
	ReplaceLeader(ctx context.Context, read cluster.View) error
	Finish(ctx context.Context, read cluster.View, d job.Done) error
}

// views is how a term sees etcd: the newest view, and one read now.
type views struct {
	newest func() (cluster.View, <-chan struct{})
	read   func(ctx context.Context) (cluster.View, error)
}

// queue takes a durable checkpoint and queues its evaluation if one is due.
type queue interface {
	examine(spec job.Spec, entry checkpoint.Entry)
}

// page shows what members report about themselves.
type page interface {
	ObserveMember(now time.Time, r progress.MemberReport)
	ledger(l *proto.Ledger)
}

// run is the loop of the term.
func (t *term) run(ctx context.Context) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	halt := t.halt
	t.saver.tidy(ctx)
	if err := t.observe(ctx, t.members.view); err != nil {
		return err
	}
	view, changed := t.views.newest()
	if err := t.observe(ctx, view); err != nil { // it may have changed since the first one was read
		return err
	}
	for {
		t.condition.does("leading", leadingLimit)
		var (
			end bool
			err error
		)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-halt:
			halt, t.halting = nil, true
			clear(t.saver.said) // why a stop waits
			t.feed(ctx, policy.Halt{})
		case <-ticker.C:
			err = t.tick(ctx)
		case <-changed:
			view, changed = t.views.newest()
			err = t.observe(ctx, view)
		case in := <-t.inputs:
			end, err = t.take(ctx, in)
		}
		if err != nil || end {
			return err
		}
		if t.failure != "" {
			t.events.emit(progress.Failure{Message: t.failure})
			return t.finish(ctx, t.failure, false)
		}
		if t.halted(ctx) {
			return t.finish(ctx, "", t.saver.durable.Manifest.Step >= t.members.job().Spec.TotalSteps())
		}
	}
}

// tick is what the loop does twice a second.
func (t *term) tick(ctx context.Context) error {
	err := t.repair(ctx)
	t.reportSteps(reportWait, "")
	t.saver.watch(time.Now(), t.halting)
	t.feed(ctx, policy.Tick{})
	return err
}

// halted reports whether a halt is over without a member of a world: none outside of it holds a newer due state than
// the directory, or gives it in time.
func (t *term) halted(ctx context.Context) bool {
	if !t.halting || !t.policy.Abandoned() {
		t.saver.gone = time.Time{}
		return false
	}
	return !t.saver.rescue(ctx)
}

// observe takes a new view of etcd.
func (t *term) observe(ctx context.Context, view cluster.View) error {
	if view.Job == nil || view.Job.UUID != t.uuid {
		fresh, err := t.views.read(ctx) // the view may be older than this term's own writes
		if err != nil {
			return nil
		}
		if view = fresh; view.Job == nil || view.Job.UUID != t.uuid {
			return t.lost(t.uuid)
		}
	}
	if view.Revision < t.members.view.Revision {
		return nil
	}
	t.announce(view)
	for _, id := range t.members.observe(view, time.Now()) {
		t.saver.forget(id)
	}
	t.follow(ctx, wantedFollowers(view))
	in := policy.Observed{Members: view.Members, World: view.World, Numerics: view.Job.Numerics}
	for _, s := range t.members.peers() {
		in.Reports = append(in.Reports, t.members.fact(s))
	}
	t.feed(ctx, in)
	t.catchUp()
	return nil
}

// catchUp reports the commits that were kept until their world was seen.
func (t *term) catchUp() {
	for member, commits := range t.members.takeAhead() {
		t.reportSteps(reportWait, member, t.members.witnessed(member, commits)...)
	}
}

// announce reports the changes that a view brings.
func (t *term) announce(view cluster.View) {
	for _, e := range memberChanges(t.members.view, view, t.dialer.layout) {
		t.events.emit(e)
	}
	if w := view.World; w != nil && t.steps.enter(w.Generation) {
		t.events.emit(worldEvent(view))
	}
}

// follow starts to follow the members that are not followed yet; wanted has their addresses.
func (t *term) follow(ctx context.Context, wanted map[string]string) {
	t.dialer.pool.Retain(slices.Collect(maps.Values(wanted)))
	for id, address := range wanted {
		if _, ok := t.members.followers[id]; ok {
			continue
		}
		following, stop := context.WithCancel(ctx)
		t.members.followers[id] = follower{address, stop, &atomic.Bool{}}
		j, after := *t.members.job(), t.steps.step()
		t.tasks.Go(func() { t.dialer.follow(following, j, id, address, after, t.inputs) })
	}
}

// take handles what a goroutine of this term brought. It says whether the job has ended.
func (t *term) take(ctx context.Context, in any) (end bool, err error) {
	switch in := in.(type) {
	case followed:
		if in.taken != nil {
			in.taken()
		}
		switch {
		case !t.members.current(in):
			return false, nil
		case in.invalid != nil:
			t.members.reject(in)
			return false, nil
		case in.noStatus != nil:
			t.events.emit(progress.Warning{Message: fmt.Sprintf("%s at %s is registered or in the world, and has "+
				"not gone on giving its status for %v: %v", in.member, in.address, t.dialer.quiet,
				job.Clean(in.noStatus.Error()))})
			return false, nil
		case in.status == nil:
			t.members.unfollow(in.member)
			t.feed(ctx, policy.Unfollowed{Member: in.member})
			return false, nil
		}
		return t.listen(ctx, in.status)
	case policy.Probed, policy.Unpublished:
		t.feed(ctx, in)
	case saved:
		return t.saved(ctx, in)
	}
	return false, nil
}

// listen takes a member's status.
func (t *term) listen(ctx context.Context, s *proto.Status) (end bool, err error) {
	t.members.listen(s)
	t.page.ObserveMember(time.Now(), t.members.report(s))
	if t.members.inWorld(s.Member) && s.Ledger != nil {
		t.page.ledger(s.Ledger)
	}
	if a := s.Accusation; t.members.accuses(s) {
		t.log.Warn("a collective failed", "member", s.Member, "generation", a.Generation, "step", a.Step,
			"suspect", a.Suspect, "kind", a.Kind, "phase", a.Phase, "chunk", a.Chunk,
			"waited", time.Duration(a.WaitedNanos), "paused", a.Paused, "detail", a.Detail)
	}
	t.reportSteps(reportWait, s.Member, t.members.witnessed(s.Member, s.Commits)...)
	t.members.heal(s)
	if s.Verdict != "" && t.members.agree(func(o *proto.Status) bool {
		return o.Verdict == s.Verdict && o.Generation == s.Generation
	}) {
		t.reportSteps(0, "")
		t.events.emit(progress.Failure{Message: s.Verdict, Member: s.Member, Generation: uint64(s.Generation),
			Step: int(s.Step) + 1})
		return true, t.finish(ctx, s.Verdict, false)
	}
	t.feed(ctx, t.members.fact(s))
	if t.saver.holdsOld(s) {
		t.saver.acknowledge(ctx, s.Member)
	}
	t.saver.save(ctx)
	return t.ended(ctx)
}

// saved takes what became of a save. It says whether the job has ended.
func (t *term) saved(ctx context.Context, in saved) (end bool, err error) {
	if !t.saver.took(ctx, in) {
		return false, nil
	}
	t.condition.saved(in.entry)
	t.evaluator.examine(t.members.job().Spec, in.entry)
	t.feed(ctx, policy.Durable{Step: in.entry.Manifest.Step})
	t.saver.save(ctx)
	return t.ended(ctx)
}

// reportSteps reports committed steps in order, with a member's commits. It waits for a step that no member has
// reported yet.
func (t *term) reportSteps(wait time.Duration, member string, commits ...*proto.Commit) {
	now := time.Now()
	spec, upTo := t.members.job().Spec, t.members.committed(now)
	for _, e := range t.steps.take(spec, now, wait, upTo, member, commits...) {
		t.events.emit(e)
		if n := e.Skips; e.Skipped != "" && (n <= saidOften || n%100 == 0) {
			t.events.emit(progress.Warning{Message: fmt.Sprintf("step %d is skipped and changes no weight (skipped "+
				"so far: %d): %s", e.Step, n, e.Skipped)})
		}
	}
	for _, step := range t.steps.disputes() {
		t.events.emit(progress.Warning{Message: fmt.Sprintf("step %d is left out of the learning curve: as many "+
			"members report one loss or metric as another, so one of them is damaged", step)})
	}
}

// ended reports whether the job, or this part of it, is over with the states that the members hold.
func (t *term) ended(ctx context.Context) (bool, error) {
	m, w := t.saver.durable.Manifest, t.members.view.World
	complete := m.Step >= t.members.job().Spec.TotalSteps()
	if w == nil || !complete && !t.halting || !t.members.agree(func(s *proto.Status) bool {
		return s.Holding && s.Generation == w.Generation && s.Step == m.Step && s.Fingerprint == m.Fingerprint
	}) {
		return false, nil
	}
	return true, t.finish(ctx, "", complete)
}

// feed gives the policy one input and carries out what it asks for.
func (t *term) feed(ctx context.Context, input any) {
	for _, action := range t.policy.Step(time.Now(), input) {
		switch a := action.(type) {
		case policy.Publish:
			t.publish(ctx, a.World)
		case policy.Probe:
			t.tasks.Go(func() { t.inputs.send(ctx, t.dialer.probe(ctx, a.Member, a.Address)) })
		case policy.AdoptNumerics:
			j := *t.members.job()
			j.Numerics, j.NumericsParts = a.Value, a.Parts
			if err := t.records.ReplaceJob(ctx, t.members.view, j); err != nil {
				t.unpublished(ctx, "the job's numerics cannot be recorded", err)
			}
		case policy.Note:
			t.events.emit(progress.Notice{Message: a.Text})
		case policy.Fail:
			t.failure = a.Failure
		}
	}
}

// repair writes again what a stranger has replaced or damaged, and all records once this process has another
// certificate: the authority of the one before may be about to go. An error: the leader's key is not this term's.
func (t *term) repair(ctx context.Context) error {
	v, keys := t.members.view, t.dialer.over.Registered()
	switch err := t.records.ReplaceLeader(ctx, v); {
	case errors.Is(err, cluster.ErrFenced):
		return errors.Join(errTermOver, err)
	case err != nil:
		t.log.Warn("cannot write the leader's record again", "err", err)
	}
	if !v.Spoilt() && slices.Equal(keys, t.sealedBy) {
		return nil
	}
	if err := t.records.ReplaceJob(ctx, v, *v.Job); err != nil {
		t.log.Warn("cannot write the records again", "err", err)
		return nil
	}
	t.sealedBy = keys
	return nil
}

func (t *term) publish(ctx context.Context, w job.World) {
	if n := w.Fit(mostOfWorld); n > 0 {
		t.log.Warn("a world's record has no room for all members that it does not use", "generation", w.Generation,
			"left out", n)
	}
	if err := t.records.PublishWorld(ctx, t.members.view, w); err != nil {
		t.unpublished(ctx, fmt.Sprintf("the world of generation %d cannot be published", w.Generation), err)
		return
	}
	t.unwritten = time.Time{}
	t.log.Info("published a world", "generation", w.Generation, "members", w.IDs(), "since", w.Since, "durable",
		w.DurableStep, "reason", w.Reason)
}

// unwrittenFor is how long records are tried to be written before it is said that they cannot be.
const unwrittenFor = 10 * time.Second

// unpublished lets the policy try again, not at once: the view may just be behind. What goes on failing is said once,
// and tried less often.
func (t *term) unpublished(ctx context.Context, what string, err error) {
	t.log.Warn(what, "err", err)
	now, wait := time.Now(), tickEvery/5
	if t.unwritten.IsZero() || now.Sub(t.tried) > unwrittenFor { // written since, or not tried
		t.unwritten, t.saidUnwritten = now, false
	} else if now.Sub(t.unwritten) >= unwrittenFor {
		wait = tickEvery
		if !t.saidUnwritten {
			t.events.emit(progress.Warning{Message: fmt.Sprintf("for %v %s, and it is tried again: %s", unwrittenFor,
				what, job.Clean(err.Error()))})
		}
		t.saidUnwritten = true
	}
	t.tried = now
	t.tasks.Go(func() {
		select {
		case <-time.After(wait):
			t.inputs.send(ctx, policy.Unpublished{})
		case <-ctx.Done():
		}
	})
}

// finish writes the end of the job, or of this stretch of it, for all members to read.
func (t *term) finish(ctx context.Context, failure string, complete bool) error {
	m := t.saver.durable.Manifest
	d := job.Done{Job: t.uuid, Step: m.Step, Fingerprint: m.Fingerprint, Checkpoint: t.saver.durable.Path,
		Complete: complete, Failure: failure}
	if w := t.members.view.World; w != nil {
		d.Generation = w.Generation
	}
	err := t.records.Finish(ctx, t.members.view, d)
	if errors.Is(err, cluster.ErrFenced) { // the view may be older than this term's own writes
		if fresh, unread := t.views.read(ctx); unread == nil {
			err = t.records.Finish(ctx, fresh, d)
		}
	}
	if err != nil {
		return errors.Join(errTermOver, err)
	}
	if failure != "" {
		return errors.New(failure)
	}
	t.done = &d
	return nil
}
