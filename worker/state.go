package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/job"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
	"evenweave/internal/transfer"
)

// Due snapshots are kept while no coordinator saves them, in so many bytes and no more than so many; beyond it the
// oldest is dropped. Two are kept of any size: one is saved while the next falls due.
const (
	snapshotBytes = 1 << 30
	maxSnapshots  = 32
	minSnapshots  = 2
)

// replica is this member's copy of the job's state, and the due snapshots of it. The loop changes it; the Member
// service reads it.
type replica struct {
	job     job.Job
	model   evenweave.Model
	layout  *state.Layout
	blocks  *exact.Blocks
	live    *state.Live // the model's tensors, and the exponents of the next step
	scratch [][]byte    // for fingerprints, which only the loop computes: one for each lane

	updating time.Duration // what the model's last update took

	computing sync.Mutex // held while gradients or a fingerprint are computed: the model must not change then

	mu     sync.RWMutex // held for writing while the live state changes
	known  bool         // false until a state has been adopted: fresh members have none
	step   int64
	ledger *schedule.Ledger
	// of the state after the last update: if the live state has another, memory has changed by itself
	expected state.Fingerprint
	// of the state that this one was computed from; zero: it was not
	before state.Fingerprint

	hashed bool  // expected was found in the live state just now, and nothing has been computed from it since
	skips  int64 // how many steps in a row were skipped last, as far as this member knows
	broken bool  // memory has changed; the member has no state until it adopts one
	// the state comes from one member alone, while this one was a spare: it counts in no exchange before others have
	// the same
	unproved bool

	changes int64                             // counts changes of the live state
	partial atomic.Pointer[transfer.Assembly] // a state that this member fetches, or has just fetched; nil: none

	unchanged sync.RWMutex // held for reading while the live state is copied in the background: it must not change then
	updates   *updateLog

	shared *stateCopy     // the live state for all peers that ask for it; nil: none has since it changed
	copies sync.WaitGroup // for peers, in the making, and memory for the next due state

	sealing   sync.Mutex // one hash at a time
	snapshots map[int64]*snapshot
	order     []int64     // their steps, oldest first
	images    [][]byte    // memory for the next snapshots
	unused    *time.Timer // frees them
	large     bool        // the state: memory for the next snapshot is made before it
	preparing bool        // it is in the making
	ended     bool        // none is kept any more
	refused   []error     // copies that are not the due state, until that is reported
	durable   int64       // the newest step that the coordinator has reported as durable

	acknowledged chan struct{} // closed, and replaced, at each acknowledgement
}

// copyChunk is how many bytes are copied for peers at a time: the longest wait of an update.
const copyChunk = 1 << 20

func newReplica(j job.Job, model evenweave.Model) (*replica, error) {
	layout, err := state.OfJob(model.Tensors())
	if err != nil {
		return nil, fmt.Errorf("the model's state: %w", err)
	}
	return &replica{
		job: j, model: model, layout: layout, blocks: layout.Blocks(), live: layout.Live(model),
		scratch: [][]byte{make([]byte, state.FingerprintBlock)},
		ledger:  schedule.NewLedger(j.Spec.Samples), snapshots: map[int64]*snapshot{},
		acknowledged: make(chan struct{}),
		updates:      newUpdateLog(layout.Size),
	}, nil
}

// fingerprint hashes the live state, a part on each lane: for the loop only, between updates.
func (r *replica) fingerprint() (state.Fingerprint, error) {
	r.computing.Lock()
	defer r.computing.Unlock()
	sum, err := state.FingerprintHead(r.step, r.ledger)
	if err != nil {
		return sum, err
	}
	parts, errs := make([]state.Fingerprint, len(r.scratch)), make([]error, len(r.scratch))
	sideBySide(len(r.scratch), func(i, n int) {
		parts[i], errs[i] = r.layout.FingerprintOf(i, n, r.live, r.scratch[i])
	})
	for _, p := range parts {
		sum = sum.Add(p)
	}
	return sum, errors.Join(errs...)
}

// claim says in this rank's slots of an exchange that it has the live state, whose fingerprint is the expected one.
func (r *replica) claim(slots []int64) {
	slots[0], slots[1], slots[2] = r.step+1, r.expected.Hi, r.expected.Lo
	slots[5], slots[6] = r.before.Hi, r.before.Lo
}

// adopt installs a state from a peer or a checkpoint. After an error this member has none.
func (r *replica) adopt(s *state.State) error {
	return r.install(s.Step, s.Ledger, func() error { return r.layout.WriteImage(r.live, s.Image) })
}

// install makes what write leaves in the live state this member's state. After an error it has none.
func (r *replica) install(step int64, ledger *schedule.Ledger, write func() error) (err error) {
	r.updates.replace()
	r.unchanged.Lock()
	defer r.unchanged.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved()
	r.known = false
	err = write()
	if err == nil {
		err = r.blocks.Check(r.live.Exponents)
	}
	if err != nil {
		return fmt.Errorf("state of step %d: %w", step, err)
	}
	r.step, r.ledger, r.skips, r.before = step, ledger, 0, state.Fingerprint{}
	if r.expected, err = r.fingerprint(); err != nil {
		return err
	}
	r.known, r.hashed, r.broken, r.unproved = true, true, false, false
	return nil
}

// invalidate drops a live state that has changed by itself, and the copy of it, which may have been taken after that.
func (r *replica) invalidate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.broken = false, true
	if s := r.snapshots[r.step]; s != nil && s.sealed == nil {
		r.drop(s)
	}
}

// update commits a step: the ledger, the model's update, the exponents and the step count. On an error nothing has
// changed but the model, perhaps: then the next fingerprint is not the one that is expected.
//
// If memory changes between the fingerprint that the ring has compared and the update, the next fingerprint shows it:
// this member's then differs from its peers', and the majority heals it.
func (r *replica) update(epoch int64, samples []int32, mean [][]float32, exponents []int32) error {
	return r.commit(epoch, samples, func() error {
		began := time.Now()
		if err := r.model.Update(mean, r.step); err != nil {
			return err
		}
		r.updating = time.Since(began)
		copy(r.live.Exponents, exponents)
		r.skips = 0
		return nil
	})
}

// skip commits a step that leaves model and exponents as they are. row is how many in a row were skipped before it, as
// the ranks count: a member that has joined meanwhile has seen fewer, and goes on from theirs.
func (r *replica) skip(epoch int64, samples []int32, row int64) error {
	return r.commit(epoch, samples, func() error { r.skips, r.updating = row+1, 0; return nil })
}

func (r *replica) commit(epoch int64, samples []int32, change func() error) error {
	r.unchanged.Lock()
	defer r.unchanged.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	ledger := r.ledger.Clone()
	if err := ledger.Commit(epoch, samples); err != nil {
		return &Verdict{fmt.Sprintf("step %d: ledger: %v", r.step+1, err)}
	}
	r.moved()
	if err := change(); err != nil {
		return err
	}
	r.ledger = ledger
	r.step++
	r.before, r.expected = r.expected, state.Fingerprint{} // no state has this
	after, err := r.fingerprint()
	if err != nil {
		return err
	}
	r.expected, r.hashed = after, true
	return nil
}

// copyInto copies the image of the live state, a part on each lane. The state must not change meanwhile.
func (r *replica) copyInto(image []byte) error {
	errs := make([]error, len(r.scratch))
	sideBySide(len(r.scratch), func(i, n int) {
		const whole = 8 // bytes: no element across two parts
		part := r.layout.Size / whole / int64(n) * whole
		first, end := part*int64(i), part*int64(i+1)
		if i == n-1 {
			end = r.layout.Size
		}
		errs[i] = r.layout.ReadImage(r.live, first, image[first:end])
	})
	return errors.Join(errs...)
}

// reschedule adopts what another coordinator may have changed: how often checkpoints are due, and the length of an
// extended job.
func (r *replica) reschedule(j job.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.CheckpointEvery, r.job.Spec.Epochs, r.job.Spec.Steps = j.CheckpointEvery, j.Spec.Epochs, j.Spec.Steps
}

// recorded adopts the durable step of the world record. It may be lower than an earlier one: then that checkpoint has
// been damaged since.
func (r *replica) recorded(durableStep int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable = min(r.durable, durableStep)
}

func (r *replica) durableStep() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.durable
}

// moved records that the live state changes. r.mu is held.
func (r *replica) moved() {
	r.changes++
	r.shared = nil
}

// at returns the state of a step, which the caller must not change: the due snapshot if verified, otherwise a copy of
// the live state that all readers share. The caller may keep it.
func (r *replica) at(ctx context.Context, step int64) (*state.Sealed, error) {
	held, _, err := r.lend(step, false, func(ready <-chan struct{}) error {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return held, err
}

// lend is at for a caller that calls end, once, and does not use the state after that. quick: it may be sealed quickly.
// wait waits until a copy is there, or returns why the caller waits no longer.
func (r *replica) lend(step int64, quick bool, wait func(ready <-chan struct{}) error) (held *state.Sealed, end func(),
	err error) {
	if due, end := r.dueAt(step, !quick); due != nil {
		return due, end, nil
	}
	if c := r.updates.at(step); c != nil {
		if err := wait(c.taken); err != nil {
			return nil, nil, err
		}
		if held := c.sealedFor(quick); held != nil {
			return held, func() {}, nil
		}
	}
	c, err := r.copy(step)
	if err != nil {
		return nil, nil, err
	}
	if err := wait(c.taken); err != nil {
		return nil, nil, err
	}
	if held = c.sealedFor(quick); held == nil {
		return nil, nil, cmp.Or(c.err, fmt.Errorf("the copy of the state of step %d is another state: memory has "+
			"changed by itself", step))
	}
	return held, func() {}, nil
}

// copy returns the copy of the live state, if it is of that step. The first caller begins it. It outlives its callers,
// so that one that asks again need not wait from the start; it ends without a state when the live one changes.
func (r *replica) copy(step int64) (*stateCopy, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.known && r.step == step && r.ended:
		return nil, fmt.Errorf("state of step %d is not given any more: this member ends", step)
	case r.known && r.step == step && r.shared != nil:
		return r.shared, nil
	case r.known && r.step == step:
		c, changes := &stateCopy{step: step, fingerprint: r.expected, taken: make(chan struct{})}, r.changes
		s := &state.State{Step: step, Ledger: r.ledger.Clone(), Layout: r.layout}
		r.shared = c
		r.copies.Go(func() { r.copyGently(c, s, changes) })
		return c, nil
	}
	held := "no state"
	if r.known {
		held = fmt.Sprintf("step %d", r.step)
	}
	return nil, fmt.Errorf("state of step %d is not here: this member holds %s and %d due snapshots", step, held,
		len(r.order))
}

// copyGently fills a copy for peers: the state may change between any two chunks, and ends it.
func (r *replica) copyGently(c *stateCopy, s *state.State, changes int64) {
	defer close(c.taken)
	s.Image = make([]byte, r.layout.Size)
	for at := int64(0); at < r.layout.Size; at += copyChunk {
		if c.err = r.copyMore(s, at, changes); c.err != nil {
			r.mu.Lock()
			if r.shared == c { // the next caller begins another one
				r.shared = nil
			}
			r.mu.Unlock()
			return
		}
	}
	c.seal(s)
}

// copyMore copies a chunk of the live state, which must not have changed since the first.
func (r *replica) copyMore(s *state.State, at, changes int64) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	switch {
	case r.changes != changes:
		return fmt.Errorf("state of step %d is not here any more: this member has gone on to step %d", s.Step, r.step)
	case r.ended:
		return fmt.Errorf("state of step %d is not given any more: this member ends", s.Step)
	}
	return r.layout.ReadImage(r.live, at, s.Image[at:min(at+copyChunk, r.layout.Size)])
}

// progress returns the committed steps (-1: no state) and the ledger of the open epoch.
func (r *replica) progress() (step int64, epochs int64, used int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if !r.known {
		return -1, 0, 0
	}
	return r.step, r.ledger.Epochs(), r.ledger.Used()
}
