package worker

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"evenweave/internal/state"
)

const (
	// An updateLog keeps updates of as many bytes as so many states and so many updates have together. Sending a state
	// takes the time of a few steps; a spare that is slower than that would fall behind however many were kept.
	keptStates  = 2
	keptUpdates = 4
	keptBytes   = 1 << 20 // at least
)

// updateLog is what a member keeps for spares that catch up with it, while there are any: a copy of the state of one
// step, and the steps since, in a bounded number of bytes. The loop writes, the Member service reads.
type updateLog struct {
	mu       sync.Mutex
	most     int64 // bytes of updates
	hasState int64 // bytes of steps
	readers  map[*logReader]bool
	room     room
	wanted   bool       // a reader waits for a copy
	copied   *stateCopy // nil: none, or the updates do not reach back to it any more
	fetched  time.Time  // when a part of it was last sent
	updates  []*update  // of consecutive steps
	summed   *update    // of the step that this member is applying; nil: none, or it is not logged
	bytes    int64
	logging  bool  // from the copy on
	replaced int64 // counts states that were adopted: what was logged before does not lead to them

	step, generation int64         // of the member
	median           time.Duration // of its steps
	changed          chan struct{}
}

// stateCopy is a state for spares, or for peers that fetch it. taken is closed when it is there.
type stateCopy struct {
	step        int64
	fingerprint state.Fingerprint
	image       []byte
	taken       chan struct{}
	state       *state.Sealed        // quickly; nil: err says why there is none
	sealed      func() *state.Sealed // the same for others, hashed when it is first called; nil: memory has changed
	err         error
}

// seal makes a copy that is whole readable.
func (c *stateCopy) seal(s *state.State) {
	c.state = state.SealQuickly(s)
	c.sealed = sync.OnceValue(func() *state.Sealed {
		if s.Fingerprint() != c.fingerprint {
			return nil
		}
		return state.Seal(s)
	})
}

// sealedFor is the state of a copy that is taken; nil: there is none.
func (c *stateCopy) sealedFor(quick bool) *state.Sealed {
	if quick || c.state == nil {
		return c.state
	}
	return c.sealed()
}

// update is a step, as another member can repeat it.
type update struct {
	step        int64             // of the state after it
	fingerprint state.Fingerprint // of that state, once it is committed
	generation  int64
	median      time.Duration // of the member's steps up to it
	changing    bool          // all ranks leave the generation after it
	skipped     bool
	weight      int64
	samples     []int32
	exponents   []int32 // that the sum was formed with
	words       []int64 // the sum, then its bounds
}

func (u *update) size() int64 { return int64(4*len(u.samples) + 4*len(u.exponents) + 8*len(u.words)) }

// newUpdateLog is for states of so many bytes.
func newUpdateLog(size int64) *updateLog {
	return &updateLog{readers: map[*logReader]bool{}, hasState: hasState, changed: make(chan struct{}),
		room: room{size: size}}
}

// change lets a writer change the log, and wakes the readers.
func (l *updateLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.changed)
	l.changed = make(chan struct{})
}

// isOpen reports whether the steps from now on are logged.
func (l *updateLog) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.logging
}

// sums shows the readers a step before it is committed, so that they apply it while this member does.
func (l *updateLog) sums(u *update) { l.change(func() { l.summed = u }) }

// commits adds a step that has led to a state. The oldest are dropped when there are too many.
func (l *updateLog) commits(u *update, f state.Fingerprint) {
	l.change(func() {
		l.step, l.generation, l.summed, u.fingerprint, l.median = u.step, u.generation, nil, f, u.median
		if !l.logging {
			return
		}
		l.updates, l.bytes = append(l.updates, u), l.bytes+u.size()
		most := l.most
		if most == 0 {
			most = max(keptStates*l.room.size+keptUpdates*u.size(), keptBytes)
		}
		for l.bytes > most {
			l.drop() // a reader may be sending it
		}
	})
}

// drop forgets the oldest update, and the copy, if that does not lead to the next one.
func (l *updateLog) drop() (u *update) {
	u, l.updates[0] = l.updates[0], nil
	if l.updates, l.bytes = l.updates[1:], l.bytes-u.size(); l.copied != nil && u.step > l.copied.step {
		l.copied = nil
	}
	return u
}

// release forgets the updates that all readers have been sent, once none fetches the copy any more, and keeps their
// memory for the steps to come. While there is no copy, a reader that waits for one needs none of them. Once there is
// one, it needs those after it.
func (l *updateLog) release() {
	for len(l.updates) > 0 {
		for r := range l.readers {
			if waits := r.passed < 0 && l.copied == nil; !waits && (r.passed < l.updates[0].step ||
				r.sentBytes < l.hasState) {
				return
			}
		}
		l.room.keep(l.drop().words)
	}
}

// enters records that the member goes on in another generation.
func (l *updateLog) enters(generation int64) { l.change(func() { l.generation = generation }) }

// replace forgets everything: the member goes on from another state.
func (l *updateLog) replace() {
	l.change(func() {
		l.replaced++
		l.forget()
	})
}

func (l *updateLog) forget() {
	l.copied, l.updates, l.summed, l.bytes, l.logging = nil, nil, nil, 0, false
}

// begin returns a copy of the state of this step, the newest one, for the caller to fill, if a reader waits for one.
// Other readers may still need updates of earlier steps.
func (l *updateLog) begin(step int64, f state.Fingerprint) (c *stateCopy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.wanted {
		return nil
	}
	c = &stateCopy{step: step, fingerprint: f, image: l.room.takeImage(), taken: make(chan struct{})}
	l.wanted, l.copied, l.logging = false, c, true
	return c
}

// at returns the copy, if it is of that step.
func (l *updateLog) at(step int64) *stateCopy {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.copied; c != nil && c.step == step {
		return c
	}
	return nil
}

// copying records that a part of a state has been sent.
func (l *updateLog) copying(step int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.copied != nil && l.copied.step == step {
		l.fetched = time.Now()
	}
}

// lastCopying is when a part of the copy was last sent.
func (l *updateLog) lastCopying() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fetched
}

// share makes an update of the step that the ranks have summed. Spares that catch up get it before it is applied; the
// words of the buffer are theirs then.
func (g *generation) share(c commit) *update {
	u := &update{step: g.replica.step + 1, generation: g.world.Generation, changing: c.changing,
		skipped: c.skipped != "", weight: g.buffer.sums[sumWeight]}
	if log := g.replica.updates; log.isOpen() {
		u.samples = slices.Clone(g.samples)
		if !u.skipped {
			u.exponents = slices.Clone(g.exponents)
			u.words = g.buffer.give(log.takeBuffer())[:g.replica.blocks.Words()+g.replica.blocks.Count()]
		}
		log.sums(u)
	}
	return u
}

// shared logs the step that was just committed, and begins to copy the state, if a spare waits for that. The next
// update waits until it is copied.
func (g *generation) shared(u *update) {
	r, log := g.replica, g.replica.updates
	u.median = g.stepTimes.median()
	log.commits(u, r.expected)
	copied := log.begin(r.step, r.expected)
	if copied == nil {
		return
	}
	s := &state.State{Step: r.step, Ledger: r.ledger.Clone(), Layout: r.layout, Image: copied.image}
	r.unchanged.RLock()
	g.sealing.Go(func() {
		defer close(copied.taken)
		if s.Image == nil {
			s.Image = make([]byte, r.layout.Size)
		}
		err := r.copyInto(s.Image)
		r.unchanged.RUnlock()
		if err != nil {
			copied.err = fmt.Errorf("copying the state of step %d: %w", s.Step, err)
			return
		}
		copied.seal(s)
	})
}
