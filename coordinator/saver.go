package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	fetchTimeout       = 60 * time.Second
	acknowledgeTimeout = 5 * time.Second
	saveRetry          = 3 * time.Second
	// how long a new term waits for reports of older due states, and any term for reports of earlier steps
	reportWait = 5 * time.Second
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
	member, step, hash, ok := t.next(time.Now())
	if !ok {
		return
	}
	t.saving = true
	number, j, address := t.etcd.Number(), t.job, t.followers[member].address
	t.tasks.Go(func() {
		r := t.c.fetchAndSave(ctx, j, number, address, step, hash)
		r.member = member
		t.send(ctx, r)
		if r.err == nil { // here, since the term's loop waits for no disk
			t.c.prune(ctx)
		}
	})
}

// next is the state to save now, its hash, and a member that has it: the oldest on offer, if it is newer than the
// durable one and needs no wait.
func (t *term) next(now time.Time) (member string, step int64, hash string, ok bool) {
	if t.saving || now.Before(t.saveAfter) {
		return "", 0, "", false
	}
	member, step, hash, ok = t.offer(now)
	switch {
	case !ok:
		return "", 0, "", false
	case step > t.nextDue() && now.Sub(t.began) < reportWait && len(t.statuses) < len(t.followers):
		// a holder of an older one may report later
		return "", 0, "", false
	case t.c.recent.awaits(step, now, reportWait):
		// a run that goes on from this state does not ask for those steps again
		return "", 0, "", false
	}
	return member, step, hash, true
}

// nextDue is the first step after the durable one whose state must be kept.
func (t *term) nextDue() int64 {
	durable, next := t.durable.Manifest.Step, t.job.Spec.TotalSteps()
	for _, every := range []int64{t.job.Spec.Plan().StepsPerEpoch(), t.job.CheckpointEvery} {
		if every > 0 {
			next = min(next, (durable/every+1)*every)
		}
	}
	return next
}

// lostEpochs counts the epochs' ends between the durable step and one that is saved next.
func (t *term) lostEpochs(saved int64) int64 {
	epoch := t.job.Spec.Plan().StepsPerEpoch()
	return max(0, (saved-1)/epoch-t.durable.Manifest.Step/epoch)
}

func (c *Coordinator) fetchAndSave(ctx context.Context, j job.Job, term int64, address string, step int64,
	hash string) saved {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s, err := c.fetch(ctx, j.UUID, address, step, hash)
	if err != nil {
		return saved{step: step, err: fmt.Errorf("fetching the state of step %d from %s: %w", step, address, err)}
	}
	entry, err := c.save(ctx, j, term, s)
	if err != nil {
		return saved{step: step, err: err}
	}
	return saved{step: step, entry: entry, seconds: time.Since(began).Seconds(),
		bytes: int64(len(s.Head) + len(s.Image))}
}

// errForged says that a member gave another state than the world agreed on.
var errForged = errors.New("it is not the state that the members agreed on")

// fetch gets a state: its head, which must have the agreed hash, and then block by block, each verified as it arrives.
func (c *Coordinator) fetch(ctx context.Context, uuid, address string, step int64, hash string) (*state.Sealed, error) {
	conn, err := c.pool.Dial(address)
	if err != nil {
		return nil, err
	}
	stream, err := proto.NewMemberClient(conn).State(ctx, &proto.StateRequest{Job: uuid, Step: step})
	if err != nil {
		return nil, err
	}
	var sum [sha256.Size]byte
	copy(sum[:], hash)
	s, err := state.Read(proto.BlockReader(stream.Recv), c.layout, c.Spec.Samples, &sum)
	if errors.Is(err, state.ErrDamaged) {
		return nil, fmt.Errorf("%w: %w", errForged, err)
	}
	if err == nil && s.Step != step {
		err = fmt.Errorf("it sent step %d", s.Step)
	}
	return s, err
}

// saved takes the result: it acknowledges, reports, evaluates, and saves the next due state. It returns whether the job
// has ended.
func (t *term) saved(ctx context.Context, in saved) (bool, error) {
	t.saving = false
	if in.err != nil {
		if status.Code(in.err) == codes.NotFound { // the member has just dropped it for newer ones
			t.c.Log.Debug("gone before it could be saved", "err", in.err)
			if s := t.statuses[in.member]; s != nil {
				s.Due = slices.DeleteFunc(s.Due, func(h *proto.HeldState) bool { return h.Step == in.step })
			}
			t.save(ctx)
			return false, nil
		}
		t.avoid[in.member] = time.Now()
		if errors.Is(in.err, errForged) {
			t.forged[in.member] = true
			t.c.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: %s: %v; %s is not asked again",
				in.member, in.err, in.member)})
			t.save(ctx) // another has it
			return false, nil
		}
		t.saveAfter = time.Now().Add(saveRetry)
		t.c.Log.Warn("no checkpoint yet", "err", in.err)
		t.c.emit(progress.Warning{Message: "checkpoint: " + in.err.Error() + "; it will be tried again"})
		return false, nil // members keep it, and every later status asks again
	}
	if lost := t.lostEpochs(in.step); lost > 0 {
		t.c.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: step %d is saved; before it %d epochs ended "+
			"whose states are gone: they "+
			"will not be evaluated. Saving is slower than epochs are, or no coordinator ran", in.step, lost)})
	}
	t.durable = in.entry
	t.proofs.saved(in.step)
	t.c.condition.saved(in.entry)
	m := in.entry.Manifest
	t.c.emit(progress.Checkpoint{Step: int(m.Step), Epoch: int(m.Epoch), Path: in.entry.Path, Seconds: in.seconds,
		Bytes: in.bytes})
	for member := range t.statuses {
		t.acknowledge(ctx, member)
	}
	t.c.examine(t.job.Spec, in.entry)
	t.feed(ctx, policy.Durable{Step: m.Step})
	t.save(ctx)
	return t.ended(ctx)
}

// acknowledge lets a member drop the durable state and older ones.
func (t *term) acknowledge(ctx context.Context, member string) {
	f, step := t.followers[member], t.durable.Manifest.Step
	if f.acknowledging == nil || !f.acknowledging.CompareAndSwap(false, true) { // its next status asks again
		return
	}
	address := f.address
	t.tasks.Go(func() {
		defer f.acknowledging.Store(false)
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
