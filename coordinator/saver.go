package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/job"
	"evenweave/policy"
	"evenweave/progress"
	"evenweave/proto"
	"evenweave/state"
)

const (
	fetchTimeout       = 60 * time.Second
	acknowledgeTimeout = 5 * time.Second
	saveRetry          = 3 * time.Second
	hearing            = 5 * time.Second // how long a new term waits to hear of older states that are due, and any term of earlier steps
)

// saved is what fetching and writing one state came to.
type saved struct {
	step    int64
	member  string
	entry   checkpoint.Entry
	seconds float64
	bytes   int64
	err     error
}

// save starts to make the next state durable. One at a time; the ring is not involved.
func (t *term) save(ctx context.Context) {
	member, step, ok := t.next(time.Now())
	if !ok {
		return
	}
	t.saving = true
	number, j, address := t.etcd.Number(), t.job, t.followers[member].address
	t.tasks.Go(func() {
		r := t.c.fetchAndSave(ctx, j, number, address, step)
		r.member = member
		t.send(ctx, r)
		if r.err == nil { // here, since the term's loop waits for no disk
			t.c.prune(ctx)
		}
	})
}

// next is the state to save now, and who has it: the oldest one on offer, if it is newer than what is durable, and nothing has to be waited for.
func (t *term) next(now time.Time) (member string, step int64, ok bool) {
	member, step, ok = t.offer()
	switch {
	case !ok, t.saving, now.Before(t.saveAfter):
		return "", 0, false
	case step > t.nextDue() && now.Sub(t.began) < hearing && len(t.told) < len(t.followers): // who holds an older one may not have been heard yet
		return "", 0, false
	case t.c.recent.awaits(step, now, hearing): // whoever goes on from this state would not ask for those steps again
		return "", 0, false
	}
	return member, step, true
}

// offer is the oldest step beyond the durable one that some member has, and who.
func (t *term) offer() (member string, step int64, ok bool) {
	durable := t.durable.Manifest.Step
	take := func(id string, s int64) {
		if s > durable && (!ok || s < step) {
			member, step, ok = id, s, true
		}
	}
	for id, s := range t.told {
		for _, due := range s.Due {
			take(id, due)
		}
		if s.Holding && t.view.World != nil && s.Generation == t.view.World.Generation {
			take(id, s.Step)
		}
	}
	return member, step, ok
}

// nextDue is the first step after the durable one whose state must be kept.
func (t *term) nextDue() int64 {
	step := t.durable.Manifest.Step + 1
	for last := t.job.Spec.TotalSteps(); step < last && !t.job.Due(step); {
		step++
	}
	return step
}

// lostEpochs counts the epochs' ends between the durable step and one that is saved next.
func (t *term) lostEpochs(saved int64) (lost int) {
	for step := t.durable.Manifest.Step + 1; step < saved; step++ {
		if t.job.Spec.EpochEnds(step) {
			lost++
		}
	}
	return lost
}

func (c *Coordinator) fetchAndSave(ctx context.Context, j job.Job, term int64, address string, step int64) saved {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s, err := c.fetch(ctx, j.UUID, address, step)
	if err != nil {
		return saved{step: step, err: fmt.Errorf("fetching the state of step %d from %s: %w", step, address, err)}
	}
	entry, err := c.save(ctx, j, term, s)
	if err != nil {
		return saved{step: step, err: err}
	}
	return saved{step: step, entry: entry, seconds: time.Since(began).Seconds(), bytes: c.stateLimit}
}

func (c *Coordinator) fetch(ctx context.Context, uuid, address string, step int64) (*state.State, error) {
	conn, err := c.pool.Dial(address)
	if err != nil {
		return nil, err
	}
	stream, err := proto.NewMemberClient(conn).State(ctx, &proto.StateRequest{Job: uuid, Step: step})
	if err != nil {
		return nil, err
	}
	s, err := state.ReadFor(proto.BlockReader(stream.Recv), tensorValues(c.Model.Tensors()), c.Spec.Samples)
	if err == nil && s.Step != step {
		err = fmt.Errorf("it sent step %d", s.Step)
	}
	return s, err
}

// saved takes the result: acknowledges, tells, evaluates, and goes on with what is still due. It says whether the job has ended.
func (t *term) saved(ctx context.Context, in saved) (bool, error) {
	t.saving = false
	if in.err != nil {
		if status.Code(in.err) == codes.NotFound { // the member has just dropped it for newer ones
			t.c.Log.Debug("gone before it could be saved", "err", in.err)
			if s := t.told[in.member]; s != nil {
				s.Due = slices.DeleteFunc(s.Due, func(step int64) bool { return step == in.step })
			}
			t.save(ctx)
			return false, nil
		}
		t.saveAfter = time.Now().Add(saveRetry)
		t.c.Log.Warn("no checkpoint yet", "err", in.err)
		t.c.emit(progress.Warning{Message: "checkpoint: " + in.err.Error() + "; it will be tried again"})
		return false, nil // members keep it, and every later status asks again
	}
	if lost := t.lostEpochs(in.step); lost > 0 {
		t.c.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: step %d is saved; before it %d epochs ended whose states are gone: they will not be evaluated. Saving is slower than epochs are, or no coordinator ran", in.step, lost)})
	}
	t.durable = in.entry
	t.c.vitals.saved(in.entry)
	m := in.entry.Manifest
	t.c.emit(progress.Checkpoint{Step: int(m.Step), Epoch: int(m.Epoch), Path: in.entry.Path, Seconds: in.seconds, Bytes: in.bytes})
	for member := range t.told {
		t.acknowledge(ctx, member)
	}
	t.c.examine(t.job.Spec, in.entry)
	t.feed(ctx, policy.Durable{Step: m.Step})
	t.save(ctx)
	for _, s := range t.told {
		if end, err := t.ended(ctx, s); end || err != nil {
			return end, err
		}
	}
	return false, nil
}

// acknowledge tells a member that it need not keep the durable state, nor older ones, any longer.
func (t *term) acknowledge(ctx context.Context, member string) {
	address, step := t.followers[member].address, t.durable.Manifest.Step
	t.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, acknowledgeTimeout)
		defer cancel()
		if conn, err := t.c.pool.Dial(address); err == nil {
			_, err = proto.NewMemberClient(conn).Acknowledge(ctx, &proto.AcknowledgeRequest{Job: t.uuid, Step: step})
			if err != nil {
				t.c.Log.Debug("acknowledging", "member", member, "err", err)
			}
		}
	})
}
