package worker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"evenweave/internal/job"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
	"evenweave/proto"
)

// maxSnapshots bounds the due snapshots that are kept for a coordinator that is away; beyond it the oldest is dropped.
const maxSnapshots = 32

// replica is this member's copy of the job's state, and the due snapshots of it. The loop changes it; the Member service reads it.
type replica struct {
	job   job.Job
	model Model

	mu     sync.RWMutex // held for writing while the live state changes
	known  bool         // false until a state has been adopted: fresh members have none
	step   int64
	ledger *schedule.Ledger
	print  state.Fingerprint // of the state as this member left it: if the live one has another, memory has changed by itself
	broken bool              // it has; nothing is known until a state is adopted

	changes int64      // counts those of the live state
	copying sync.Mutex // one copy for peers at a time
	shared  atomic.Pointer[sharedCopy]

	sealing   sync.Mutex // one hash at a time
	snapshots map[int64]*snapshot
	order     []int64
	durable   int64         // the newest step that the coordinator has said to be durable
	newer     chan struct{} // closed, and another from then on, when it says so
}

// sharedCopy is the live state for all peers that ask for it, while it has not changed.
type sharedCopy struct {
	state   *state.State
	changes int64
}

// copyChunk is how many values are copied for peers at once: an update waits for no more.
const copyChunk = 1 << 18

type snapshot struct {
	state    *state.State
	print    state.Fingerprint
	verified bool
	world    int64  // generation that agreed on it
	sha256   []byte // nil until it is sealed
}

func newReplica(j job.Job, model Model) *replica {
	return &replica{job: j, model: model, ledger: schedule.NewLedger(j.Spec.Samples), snapshots: map[int64]*snapshot{}, newer: make(chan struct{})}
}

// live is the state without a copy: for the loop only, between updates.
func (r *replica) live() *state.State {
	return &state.State{Step: r.step, Ledger: r.ledger, Values: r.model.State()}
}

// adopt takes over a state fetched from a peer or a checkpoint.
func (r *replica) adopt(s *state.State) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.model.SetState(s.Values); err != nil {
		return fmt.Errorf("state of step %d: %w", s.Step, err)
	}
	r.moved()
	r.step, r.ledger, r.known, r.broken = s.Step, s.Ledger, true, false
	r.print = r.live().Fingerprint()
	if r.job.Due(r.step) && r.step > r.durable { // those who computed it may die before it is saved
		r.keep()
	}
	return nil
}

// disown forgets a live state that has changed by itself.
func (r *replica) disown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.broken = false, true
}

// update commits a step: the ledger, the model's update, the step count, and the snapshot if one is due. On an error nothing has changed.
func (r *replica) update(epoch int64, samples []int32, mean []float32) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	ledger := r.ledger.Clone()
	if err := ledger.Commit(epoch, samples); err != nil {
		return &Verdict{fmt.Sprintf("step %d: ledger: %v", r.step+1, err)}
	}
	intact := r.live().Fingerprint() == r.print
	if err := r.model.Update(mean, r.step); err != nil {
		return err
	}
	r.ledger = ledger
	r.step++
	r.moved()
	if r.print = r.live().Fingerprint(); !intact { // while the ring was summing: what came of it is owned up to in the next exchange
		r.print = state.Fingerprint{}
	}
	if r.job.Due(r.step) {
		r.keep()
	}
	return nil
}

// keep stores a copy of the live state as a due snapshot, not yet verified.
func (r *replica) keep() {
	if _, ok := r.snapshots[r.step]; !ok {
		r.order = append(r.order, r.step)
	}
	r.snapshots[r.step] = &snapshot{state: r.copy(), print: r.print}
	for len(r.order) > maxSnapshots {
		delete(r.snapshots, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *replica) copy() *state.State {
	live := r.live()
	return &state.State{Step: live.Step, Ledger: live.Ledger.Clone(), Values: append([]float32(nil), live.Values...)}
}

// verify marks the snapshot of the live step as agreed by all ranks of a world. It says whether a due snapshot became readable by that, or was
// agreed on anew.
func (r *replica) verify(f state.Fingerprint, generation int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.snapshots[r.step]
	if !ok || s.verified && s.world >= generation {
		return false
	}
	s.world = max(s.world, generation)
	if s.verified {
		return true
	}
	if s.print != f { // the live state was healed after the copy was taken
		live := r.copy()
		s.state, s.print = live, f
	}
	s.verified = true
	return true
}

// seal hashes the verified snapshots that are not hashed yet. They do not change any more, so nobody waits for it.
func (r *replica) seal() {
	r.sealing.Lock()
	defer r.sealing.Unlock()
	for {
		s := r.unsealed()
		if s == nil {
			return
		}
		sum := s.state.SHA256()
		r.mu.Lock()
		s.sha256 = sum[:]
		r.mu.Unlock()
	}
}

func (r *replica) unsealed() *snapshot {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, step := range r.order {
		if s := r.snapshots[step]; s.verified && s.sha256 == nil {
			return s
		}
	}
	return nil
}

// due lists the sealed snapshots that nobody has acknowledged.
func (r *replica) due() []*proto.HeldState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var held []*proto.HeldState
	for _, step := range r.order {
		if s := r.snapshots[step]; s.sha256 != nil {
			held = append(held, &proto.HeldState{Step: step, Sha256: s.sha256, Generation: s.world})
		}
	}
	return held
}

// reschedule takes over how often checkpoints are due, which another coordinator may have changed.
func (r *replica) reschedule(every int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.job.CheckpointEvery = every
}

// recorded takes over what the record of the world that is entered calls durable. It may be less than what was said in an earlier one: that checkpoint has
// been damaged since, and nobody could load it.
func (r *replica) recorded(floor int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable = min(r.durable, floor)
}

// outstanding counts the due snapshots, verified or not, that nobody has acknowledged. The channel is closed at the next acknowledgement.
func (r *replica) outstanding() (n int, acknowledged <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.order), r.newer
}

// acknowledge drops the snapshots up to a step that is durable.
func (r *replica) acknowledge(step int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable = max(r.durable, step)
	close(r.newer)
	r.newer = make(chan struct{})
	rest := r.order[:0]
	for _, s := range r.order {
		if s <= step {
			delete(r.snapshots, s)
		} else {
			rest = append(rest, s)
		}
	}
	r.order = rest
}

func (r *replica) durableStep() int64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.durable
}

// moved says that the live state becomes another. r.mu is held.
func (r *replica) moved() {
	r.changes++
	r.shared.Store(nil)
}

// at returns the state of a step, which nobody may change: the due snapshot if verified, else one copy of the live state for all that ask.
func (r *replica) at(ctx context.Context, step int64) (*state.State, error) {
	r.copying.Lock()
	defer r.copying.Unlock()
	held, changes, err := r.held(step)
	if err != nil {
		return nil, err
	}
	if held.Values != nil {
		return held, nil
	}
	for whole := false; !whole; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if whole, err = r.copyMore(held, changes); err != nil {
			return nil, err
		}
	}
	r.shared.Store(&sharedCopy{held, changes})
	return held, nil
}

// copyMore appends a chunk of the live values, which must not have changed since the first.
func (r *replica) copyMore(s *state.State, changes int64) (whole bool, err error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.changes != changes {
		return false, fmt.Errorf("state of step %d is not here any more: this member has gone on to step %d", s.Step, r.step)
	}
	live := r.model.State()
	if s.Values == nil {
		s.Values = make([]float32, 0, len(live))
	}
	lo := len(s.Values)
	s.Values = append(s.Values, live[lo:min(lo+copyChunk, len(live))]...)
	return len(s.Values) == len(live), nil
}

// held returns the state of a step that is there already, or one without values if it is the live one, after so many changes.
func (r *replica) held(step int64) (*state.State, int64, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if s, ok := r.snapshots[step]; ok && s.verified {
		return s.state, 0, nil
	}
	if r.known && r.step == step {
		if c := r.shared.Load(); c != nil && c.changes == r.changes {
			return c.state, 0, nil
		}
		return &state.State{Step: step, Ledger: r.ledger.Clone()}, r.changes, nil
	}
	held := "no state"
	if r.known {
		held = fmt.Sprintf("step %d", r.step)
	}
	return nil, 0, fmt.Errorf("state of step %d is not here: this member holds %s and %d due snapshots", step, held, len(r.order))
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
