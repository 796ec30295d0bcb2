package coordinator

import (
	"context"
	"errors"
	"fmt"
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

// term is one stretch of leadership: one goroutine feeds facts to the policy and carries out its actions.
type term struct {
	c      *Coordinator
	etcd   *cluster.Term
	uuid   string // of the job, for its goroutines: the record itself belongs to the loop
	job    job.Job
	policy *policy.Policy
	view   cluster.View

	inputs    chan any
	followers map[string]follower // by member
	statuses  map[string]*proto.Status
	proofs    *proofs
	ahead     map[string][]*proto.Commit // by member: of worlds that this term has not seen yet
	invalid   map[string]bool            // members whose status could not be; each is named once
	// members that failed to give a state, or gave another one: until when others are asked first
	avoid     map[string]time.Time
	forged    map[string]bool // those that gave another one: they are not asked again
	doubted   map[int64]bool  // due steps that are passed over; each is named once
	saving    bool
	saveAfter time.Time // after a failure: not before this
	began     time.Time
	durable   checkpoint.Entry
	halting   bool
	failure   string // the policy's verdict on the job
	tasks     sync.WaitGroup
}

type follower struct {
	address       string
	stop          context.CancelFunc
	acknowledging *atomic.Bool // one at a time
}

// lead runs one term to its end, and resigns: nil when the job is done, errTermOver when the leadership is lost.
func (c *Coordinator) lead(ctx context.Context, etcd *cluster.Term) error {
	resign := sync.OnceFunc(func() { etcd.Resign(context.WithoutCancel(ctx)) })
	defer resign()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := context.AfterFunc(etcd.Context(), func() { cancel(errTermOver) })
	defer lost()

	j, step, err := c.open(ctx, etcd)
	if err != nil {
		return err
	}
	view, err := c.client.Read(ctx)
	if err != nil {
		return errors.Join(errTermOver, err)
	}
	closeMetrics, err := c.openMetrics()
	if err != nil {
		return err
	}
	defer closeMetrics()
	c.begin(j, step)
	c.warnOfLoss(view, step)
	c.recent.lead()
	c.missed(j.Spec)
	stop, evaluated := c.startEvaluating(ctx)
	defer func() {
		stop()
		resign() // another may lead while this process is still busy compiling, say
		<-evaluated
	}()
	newest, err := c.store.Latest(ctx)
	if err != nil {
		return err
	}
	c.condition.saved(*newest)
	t := &term{
		c: c, etcd: etcd, uuid: j.UUID, job: j, view: view, durable: *newest, began: time.Now(),
		policy: policy.New(j.UUID, c.Self.Address, step, c.Limits), inputs: make(chan any, 256),
	}
	t.init()
	if d := view.Done; d != nil {
		switch {
		case d.Failure != "":
			return fmt.Errorf("the job failed before: %s; its checkpoints are in %s", d.Failure, c.Dir)
		case d.Complete && step >= d.Step:
			return c.conclude(ctx, t.durable, *d)
		}
		if err := etcd.Reopen(ctx); err != nil {
			return errors.Join(errTermOver, err)
		}
	}
	if step >= j.Spec.TotalSteps() { // complete on disk, not yet in etcd
		return t.finish(ctx, "", true)
	}
	defer t.tasks.Wait()
	defer cancel(nil)
	return t.run(ctx)
}

func (t *term) init() {
	t.followers, t.statuses, t.proofs, t.ahead = map[string]follower{}, map[string]*proto.Status{}, newProofs(),
		map[string][]*proto.Commit{}
	t.invalid, t.avoid, t.forged, t.doubted = map[string]bool{}, map[string]time.Time{}, map[string]bool{},
		map[int64]bool{}
}

// run is the loop of the term.
func (t *term) run(ctx context.Context) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	halt := t.c.halt
	if err := t.observe(ctx, t.view); err != nil {
		return err
	}
	view, changed := t.c.views.View()
	if err := t.observe(ctx, view); err != nil { // it may have changed since t.view was read
		return err
	}
	for {
		t.c.condition.does("leading", leadingLimit)
		var (
			end bool
			err error
		)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-halt:
			halt, t.halting = nil, true
			t.feed(ctx, policy.Halt{})
		case <-ticker.C:
			t.reportSteps(reportWait)
			t.feed(ctx, policy.Tick{})
		case <-changed:
			view, changed = t.c.views.View()
			err = t.observe(ctx, view)
		case in := <-t.inputs:
			end, err = t.take(ctx, in)
		}
		if err != nil || end {
			return err
		}
		if t.failure != "" {
			t.c.emit(progress.Failure{Message: t.failure})
			return t.finish(ctx, t.failure, false)
		}
		if t.halting && t.policy.Abandoned() { // no member holds a newer state than the directory
			return t.finish(ctx, "", false)
		}
	}
}

// observe takes a new view of etcd.
func (t *term) observe(ctx context.Context, view cluster.View) error {
	if view.Job == nil || view.Job.UUID != t.uuid {
		fresh, err := t.c.client.Read(ctx) // the view may be older than this term's own writes
		if err != nil {
			return nil
		}
		if view = fresh; view.Job == nil || view.Job.UUID != t.uuid {
			return t.c.lostRecord(t.uuid)
		}
	}
	if view.Revision < t.view.Revision {
		return nil
	}
	t.announce(view)
	t.view, t.job = view, *view.Job
	if view.World != nil {
		t.disbelieve(*view.World)
		t.proofs.enter(*view.World, time.Now())
	}
	wanted := wantedFollowers(view)
	for id, f := range t.followers {
		if wanted[id] != f.address {
			f.stop()
			delete(t.followers, id)
			t.unfollow(id)
			for _, per := range []map[string]bool{t.invalid, t.forged} { // another process
				delete(per, id)
			}
			delete(t.avoid, id)
			delete(t.ahead, id)
			delete(t.c.healed, id)
		}
	}
	t.c.pool.Retain(slices.Collect(maps.Values(wanted)))
	for id, address := range wanted {
		if _, ok := t.followers[id]; !ok {
			following, stop := context.WithCancel(ctx)
			t.followers[id] = follower{address, stop, &atomic.Bool{}}
			j := t.job
			t.tasks.Go(func() { t.follow(following, j, id, address, t.c.recent.step()) })
		}
	}
	in := policy.Observed{Members: view.Members, World: view.World, Numerics: view.Job.Numerics}
	for _, s := range t.peers() {
		in.Reports = append(in.Reports, t.fact(s))
	}
	t.feed(ctx, in)
	t.catchUp()
	return nil
}

// take handles what a goroutine of this term brought. It says whether the job has ended.
func (t *term) take(ctx context.Context, in any) (end bool, err error) {
	switch in := in.(type) {
	case followed:
		if in.taken != nil {
			in.taken()
		}
		// said before it was dropped, or by an earlier process of that id
		if f, ok := t.followers[in.member]; !ok || f.address != in.address {
			return false, nil
		}
		if in.invalid != nil {
			if !t.invalid[in.member] {
				t.invalid[in.member] = true
				t.c.emit(progress.Warning{Message: fmt.Sprintf("%s sent an impossible status, which is ignored: %s",
					in.member, job.Clean(in.invalid.Error()))})
			}
			return false, nil
		}
		if in.status == nil {
			t.unfollow(in.member)
			t.feed(ctx, policy.Unfollowed{Member: in.member})
			return false, nil
		}
		return t.listen(ctx, in)
	case policy.Probed, policy.Unpublished:
		t.feed(ctx, in)
	case saved:
		return t.saved(ctx, in)
	}
	return false, nil
}

// listen takes a member's status. A member outside the present world counts only about itself.
func (t *term) listen(ctx context.Context, in followed) (end bool, err error) {
	s := in.status
	before := t.statuses[in.member]
	t.statuses[in.member] = s
	t.show(in.member, s)
	if t.inWorld(in.member) {
		delete(t.proofs.silent, in.member)
		t.c.status.report(in.member, s)
	}
	if a := s.Accusation; a != nil && a.Kind != policy.KindWaiting &&
		(before == nil || before.Accusation.GetKind() != a.Kind) {
		t.c.Log.Warn("a collective failed", "member", s.Member, "generation", a.Generation, "step", a.Step,
			"suspect", a.Suspect,
			"kind", a.Kind, "phase", a.Phase, "chunk", a.Chunk, "waited", time.Duration(a.WaitedNanos), "paused",
			a.Paused, "detail", a.Detail)
	}
	t.reportSteps(reportWait, t.witnessed(s.Member, s.Commits)...)
	already := t.c.healed[in.member]
	if t.c.healed[in.member] = s.Heals; s.Heals > already { // a process that comes back under its id begins at 0
		t.c.emit(progress.Warning{Message: "healed: " + s.Heal})
	}
	if s.Verdict != "" && t.agree(func(o *proto.Status) bool {
		return o.Verdict == s.Verdict &&
			o.Generation == s.Generation
	}) {
		t.reportSteps(0)
		t.c.emit(progress.Failure{Message: s.Verdict, Member: s.Member, Generation: uint64(s.Generation),
			Step: int(s.Step) + 1})
		return true, t.finish(ctx, s.Verdict, false)
	}
	t.feed(ctx, t.fact(s))
	// it did not report when that was saved
	if slices.ContainsFunc(s.Due, func(h *proto.HeldState) bool { return h.Step <= t.durable.Manifest.Step }) {
		t.acknowledge(ctx, in.member)
	}
	t.save(ctx)
	return t.ended(ctx)
}

// fact is the part of a status that the policy may use.
func (t *term) fact(s *proto.Status) policy.Report {
	report := policy.Report{Member: s.Member, Generation: s.Generation, Step: s.Step, Resting: policy.Rests(s.Phase)}
	if !t.inWorld(s.Member) {
		return report
	}
	report.Holding, report.Committed = s.Holding, s.Generation > 0 && s.Opened == s.Generation
	if a := s.Accusation; a != nil {
		report.Accusation = &policy.Accusation{Suspect: a.Suspect, Kind: a.Kind, Step: a.Step, Phase: a.Phase,
			Detail: a.Detail, Paused: a.Paused}
	} else if s.Verdict != "" { // which the others do not share, or it would have ended the job
		report.Accusation = &policy.Accusation{Kind: policy.KindOther, Step: s.Step, Phase: s.Phase, Detail: s.Verdict}
	}
	return report
}

// reportSteps reports committed steps in order. It waits for a step that no member has reported yet.
func (t *term) reportSteps(wait time.Duration, commits ...*proto.Commit) {
	var steps []int64
	for _, s := range t.peers() {
		steps = append(steps, s.Step)
	}
	now := time.Now()
	for _, e := range t.c.recent.take(t.job.Spec, now, wait, t.proofs.committed(steps, now), commits...) {
		t.c.emit(e)
	}
}

// ended reports whether the job, or this part of it, is over with the states that the members hold.
func (t *term) ended(ctx context.Context) (bool, error) {
	m, w := t.durable.Manifest, t.view.World
	complete := m.Step >= t.job.Spec.TotalSteps()
	if w == nil || !complete && !t.halting || !t.agree(func(s *proto.Status) bool {
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
			t.tasks.Go(func() { t.send(ctx, t.probe(ctx, a.Member, a.Address)) })
		case policy.AdoptNumerics:
			j := t.job
			j.Numerics = a.Value
			if err := t.etcd.ReplaceJob(ctx, t.view, j); err != nil {
				t.c.Log.Warn("cannot record the job's numerics", "err", err)
				t.unpublished(ctx)
			}
		case policy.Note:
			t.c.emit(progress.Notice{Message: a.Text})
		case policy.Fail:
			t.failure = a.Failure
		}
	}
}

func (t *term) publish(ctx context.Context, w job.World) {
	if err := t.etcd.PublishWorld(ctx, t.view, w); err != nil {
		t.c.Log.Warn("cannot publish a world", "generation", w.Generation, "err", err)
		t.unpublished(ctx)
		return
	}
	t.c.Log.Info("published a world", "generation", w.Generation, "members", w.IDs(), "since", w.Since, "durable",
		w.DurableStep, "reason", w.Reason)
}

// unpublished lets the policy try again, not at once: the view may just be behind.
func (t *term) unpublished(ctx context.Context) {
	t.tasks.Go(func() {
		select {
		case <-time.After(tickEvery / 5):
			t.send(ctx, policy.Unpublished{})
		case <-ctx.Done():
		}
	})
}

// announce reports the changes between two views.
func (t *term) announce(view cluster.View) {
	for _, m := range view.Members {
		if _, known := t.view.Member(m.ID); !known {
			t.c.emit(progress.MemberChange{ID: m.ID, What: progress.Ready,
				Detail: fmt.Sprintf("pid %d on %s", m.PID, m.Host)})
			if err := m.Speaks(); err != nil {
				t.c.emit(progress.MemberChange{ID: m.ID, What: progress.Refused, Detail: err.Error()})
			}
			if n := view.Job.Numerics; n != "" && m.Numerics != n {
				t.c.emit(progress.MemberChange{ID: m.ID, What: progress.Refused,
					Detail: fmt.Sprintf("its golden probe gives %s, the job's is %s", m.Numerics, n)})
			}
		}
	}
	for _, m := range t.view.Members {
		if _, still := view.Member(m.ID); !still {
			what := progress.Lost
			if m.Leaving {
				what = progress.Left
			}
			t.c.emit(progress.MemberChange{ID: m.ID, What: what, Detail: fmt.Sprintf("pid %d on %s", m.PID, m.Host)})
		}
	}
	w := view.World
	if w == nil || t.c.recent.generation() >= w.Generation {
		return
	}
	t.c.recent.enter(w.Generation)
	e := progress.World{Generation: uint64(w.Generation), Size: w.Size(), Reason: w.Reason,
		Planned: w.Since < w.Generation}
	for rank, p := range w.Peers {
		m, _ := view.Member(p.ID)
		e.Members = append(e.Members, progress.Member{ID: p.ID, Rank: rank, Address: p.Address, PID: m.PID,
			Host: m.Host})
	}
	t.c.emit(e)
}

// finish writes the end of the job, or of this stretch of it, for all members to read.
func (t *term) finish(ctx context.Context, failure string, complete bool) error {
	m := t.durable.Manifest
	d := job.Done{Job: t.uuid, Step: m.Step, Fingerprint: m.Fingerprint, Checkpoint: t.durable.Path, Complete: complete,
		Failure: failure}
	if t.view.World != nil {
		d.Generation = t.view.World.Generation
	}
	if err := t.etcd.Finish(ctx, d); err != nil {
		return errors.Join(errTermOver, err)
	}
	if failure != "" {
		return errors.New(failure)
	}
	return t.c.conclude(ctx, t.durable, d)
}
