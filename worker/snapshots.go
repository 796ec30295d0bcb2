package worker

import (
	"evenweave/internal/state"
	"evenweave/proto"
)

// mostSnapshots is how many states of a size are kept.
func mostSnapshots(size int64) int {
	return int(min(max(snapshotBytes/max(size, 1), minSnapshots), maxSnapshots))
}

type snapshot struct {
	state       *state.State
	fingerprint state.Fingerprint
	verified    bool
	world       int64         // generation that agreed on it
	sealed      *state.Sealed // nil until it is hashed
}

// keepDue keeps a snapshot of the live state if it is due and not durable: a member that joined with it keeps it too,
// because those that computed it may die before it is saved.
func (r *replica) keepDue() error {
	if !r.lacksDue() {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.keep()
}

// lacksDue reports whether the live state is due, and there is no snapshot of it.
func (r *replica) lacksDue() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, kept := r.snapshots[r.step]
	return r.job.Due(r.step) && r.step > r.durable && !(kept && s.fingerprint == r.expected)
}

// keep stores a copy of the live state as a due snapshot, not yet verified.
func (r *replica) keep() error {
	live, err := r.copy()
	if err != nil {
		return err
	}
	if _, ok := r.snapshots[r.step]; !ok {
		r.order = append(r.order, r.step)
	}
	r.snapshots[r.step] = &snapshot{state: live, fingerprint: r.expected}
	for len(r.order) > mostSnapshots(r.layout.Size) {
		delete(r.snapshots, r.order[0])
		r.order = r.order[1:]
	}
	return nil
}

// seal hashes the verified snapshots that are not hashed yet. They no longer change, so nothing waits for it.
func (r *replica) seal() {
	r.sealing.Lock()
	defer r.sealing.Unlock()
	for {
		s := r.unsealed()
		if s == nil {
			return
		}
		sealed := state.Seal(s.state)
		r.mu.Lock()
		s.sealed = sealed
		r.mu.Unlock()
	}
}

func (r *replica) unsealed() *snapshot {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, step := range r.order {
		if s := r.snapshots[step]; s.verified && s.sealed == nil {
			return s
		}
	}
	return nil
}

// due lists the sealed snapshots that are not acknowledged.
func (r *replica) due() []*proto.HeldState {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var held []*proto.HeldState
	for _, step := range r.order {
		if s := r.snapshots[step]; s.sealed != nil {
			held = append(held, &proto.HeldState{Step: step, Sha256: s.sealed.SHA256[:], Generation: s.world})
		}
	}
	return held
}

// outstanding counts the due snapshots, verified or not, that are not acknowledged. The channel is closed at the next
// acknowledgement.
func (r *replica) outstanding() (n int, acknowledged <-chan struct{}) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.order), r.acknowledged
}

// acknowledge drops the snapshots up to a step that is durable.
func (r *replica) acknowledge(step int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.durable = max(r.durable, step)
	close(r.acknowledged)
	r.acknowledged = make(chan struct{})
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
