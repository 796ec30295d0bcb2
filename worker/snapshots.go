package worker

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	// imagesStay is how long memory is kept for the next due state, after the last step that needs it soon.
	imagesStay = time.Minute
	// soonDue is how many steps before a due state there should be memory for it. A step takes at least as long as a
	// state takes to be read some times, so that this many are enough to make memory gently.
	soonDue = 32
)

// mostSnapshots is how many states of a size are kept.
func mostSnapshots(size int64) int {
	return int(min(max(snapshotBytes/max(size, 1), minSnapshots), maxSnapshots))
}

// snapshot is a due state, until it is durable or too old. r.mu guards all but state and err.
type snapshot struct {
	state       *state.State
	err         error
	taken       chan struct{} // closed when state is whole, or err says why it is not
	fingerprint state.Fingerprint
	verified    bool
	world       int64         // generation that agreed on it
	sealed      *state.Sealed // nil until it is hashed
	users       int           // that write, hash or read the image
}

// keepDue keeps a snapshot of the live state if it is due and not durable: a member that joined with it keeps it too,
// because those that computed it may die before it is saved.
func (r *replica) keepDue(tasks *sync.WaitGroup) {
	if r.lacksDue() {
		r.keep(tasks)
	}
}

// lacksDue reports whether the live state is due, and there is no snapshot of it.
func (r *replica) lacksDue() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	s, kept := r.snapshots[r.step]
	return r.job.Due(r.step) && r.step > r.durable && !(kept && s.fingerprint == r.expected)
}

// keep begins to copy the live state as a due snapshot, not yet verified. The next gradients are computed meanwhile.
// What changes the state waits.
func (r *replica) keep(tasks *sync.WaitGroup) {
	s := &snapshot{state: &state.State{Step: r.step, Ledger: r.ledger.Clone(), Layout: r.layout},
		fingerprint: r.expected, taken: make(chan struct{}), users: 1}
	r.unchanged.RLock() // fill unlocks it
	r.add(s)
	tasks.Go(func() { r.fill(s) })
}

// add lists a snapshot, in place of an earlier one of its step, and drops the oldest if there are too many.
func (r *replica) add(s *snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.drop(r.snapshots[s.state.Step])
	r.snapshots[s.state.Step], r.order = s, append(r.order, s.state.Step)
	for len(r.order) > mostSnapshots(r.layout.Size) {
		r.drop(r.snapshots[r.order[0]])
	}
}

// fill copies the live state, which is locked against changes, into a snapshot.
func (r *replica) fill(s *snapshot) {
	if s.state.Image = r.image(); s.state.Image == nil {
		s.state.Image = make([]byte, r.layout.Size)
	}
	s.err = r.copyInto(s.state.Image)
	r.unchanged.RUnlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leave(s)
	close(s.taken)
}

// drop forgets a snapshot, unless it is forgotten already or nil. r.mu is held.
func (r *replica) drop(s *snapshot) {
	if s == nil || r.snapshots[s.state.Step] != s {
		return
	}
	delete(r.snapshots, s.state.Step)
	r.order = slices.DeleteFunc(r.order, func(step int64) bool { return step == s.state.Step })
	r.reuse(s)
}

// leave ends the use of a snapshot. r.mu is held.
func (r *replica) leave(s *snapshot) {
	s.users--
	r.reuse(s)
}

// reuse keeps the memory of a snapshot that is not used any more for the next one, if that comes soon: new pages take
// several times as long to copy into. r.mu is held.
func (r *replica) reuse(s *snapshot) {
	if r.snapshots[s.state.Step] == s || s.users > 0 || len(r.images) == minSnapshots || r.ended {
		return
	}
	r.keepImage(s.state.Image)
}

// keepImage keeps memory for the next due state. r.mu is held.
func (r *replica) keepImage(image []byte) {
	r.images = append(r.images, image)
	if r.unused != nil {
		r.unused.Stop()
	}
	r.unused = time.AfterFunc(imagesStay, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.images = nil
	})
}

// end frees the memory that is kept, and keeps no more. It waits for what is copied for peers, or made, which ends.
func (r *replica) end() {
	r.mu.Lock()
	if r.images, r.ended = nil, true; r.unused != nil {
		r.unused.Stop()
	}
	r.mu.Unlock()
	r.copies.Wait()
}

// prepare sees to it, after a step, that there is memory for a large due state that comes soon. The next update waits
// for the copy of it, and copying into memory that the kernel has yet to give takes several times as long: on some
// members only, and the others would wait. A due state that is not durable yet gives its memory back.
func (r *replica) prepare() {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case !r.large || r.ended || len(r.order) > 0 || !r.dueSoon():
	case len(r.images) > 0:
		clear(r.images[1:]) // one is enough: others were in use at the same time once
		r.images = r.images[:1]
		r.unused.Reset(imagesStay)
	case !r.preparing:
		r.preparing = true
		r.copies.Go(r.makeImage)
	}
}

// dueSoon reports whether one of the next states is due.
func (r *replica) dueSoon() bool {
	for step := r.step + 1; step <= min(r.step+soonDue, r.job.Spec.TotalSteps()); step++ {
		if r.job.Due(step) {
			return true
		}
	}
	return false
}

// makeImage makes memory for a due state, a little at a time, unless a state comes that has its own, or gives it back.
func (r *replica) makeImage() {
	image, begun := make([]byte, r.layout.Size), time.Now()
	lacking := func() bool { return !r.ended && len(r.images) == 0 && len(r.order) == 0 }
	whole := touch(image, func(took time.Duration) bool {
		r.mu.Lock()
		needed := lacking()
		r.mu.Unlock()
		return rest(took, begun, needed)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.preparing = false; whole && lacking() {
		r.keepImage(image)
	}
}

// image takes memory that is kept; nil: there is none.
func (r *replica) image() (image []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last := len(r.images) - 1; last >= 0 {
		image = r.images[last]
		r.images = slices.Delete(r.images, last, last+1)
	}
	return image
}

// verify marks the snapshot of the live step, which has that fingerprint, as agreed by all ranks of a world. It reports
// whether a due snapshot became readable by that, or was agreed on again.
func (r *replica) verify(f state.Fingerprint, generation int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.snapshots[r.step]
	switch {
	case !ok || s.verified && s.world >= generation:
		return false
	case s.fingerprint != f: // a state that was healed; one that is still due has been copied again
		r.drop(s)
		return false
	}
	s.verified, s.world = true, max(s.world, generation)
	return true
}

// seal hashes the verified snapshots that are not hashed yet. They no longer change, so nothing waits for it. One that
// is not the state that was agreed on is dropped: memory has changed before or while it was copied, or since.
func (r *replica) seal() {
	r.sealing.Lock()
	defer r.sealing.Unlock()
	for s := r.unsealed(); s != nil; s = r.unsealed() {
		sealed, err := s.seal()
		r.mu.Lock()
		if s.sealed = sealed; err != nil {
			r.refused = append(r.refused, err)
			r.drop(s)
		}
		r.leave(s)
		r.mu.Unlock()
	}
}

// refusals says which due states could not be sealed since the last call, and why.
func (r *replica) refusals() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := errors.Join(r.refused...)
	r.refused = nil
	return err
}

func (s *snapshot) seal() (*state.Sealed, error) {
	if <-s.taken; s.err != nil {
		return nil, fmt.Errorf("copying the due state of step %d: %w", s.state.Step, s.err)
	}
	if found := s.state.Fingerprint(); found != s.fingerprint {
		return nil, fmt.Errorf("the copy of the due state of step %d has fingerprint %s, expected %s: memory has "+
			"changed by itself", s.state.Step, found, s.fingerprint)
	}
	return state.Seal(s.state), nil
}

// unsealed is a verified snapshot to hash, and the caller its user.
func (r *replica) unsealed() *snapshot {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, step := range r.order {
		if s := r.snapshots[step]; s.verified && s.sealed == nil {
			s.users++
			return s
		}
	}
	return nil
}

// dueAt is the snapshot of a step, if it is verified, until the reader calls end; nil: there is none. One that is not
// hashed yet is hashed first, or else there is none.
func (r *replica) dueAt(step int64, hash bool) (held *state.Sealed, end func()) {
	r.mu.Lock()
	s := r.snapshots[step]
	if s == nil || !s.verified || s.sealed == nil && !hash {
		r.mu.Unlock()
		return nil, nil
	}
	s.users++
	hashed := s.sealed != nil
	r.mu.Unlock()
	if !hashed {
		r.seal()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if held = s.sealed; held == nil {
		r.leave(s)
		return nil, nil
	}
	return held, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.leave(s)
	}
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
	for of, s := range r.snapshots {
		if of <= step {
			r.drop(s)
		}
	}
}
