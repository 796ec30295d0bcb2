package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	maxReaders = 4 // spares that catch up with one member at the same time
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

	step, generation int64 // of the member
	changed          chan struct{}
}

// stateCopy is a state for spares. taken is closed when it is there.
type stateCopy struct {
	step        int64
	fingerprint state.Fingerprint
	image       []byte
	taken       chan struct{}
	state       *state.Sealed        // quickly
	sealed      func() *state.Sealed // the same for others, hashed when it is first called; nil: memory has changed
	err         error
}

// update is a step, as another member can repeat it.
type update struct {
	step        int64             // of the state after it
	fingerprint state.Fingerprint // of that state, once it is committed
	generation  int64
	changing    bool // all ranks leave the generation after it
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
		l.step, l.generation, l.summed, u.fingerprint = u.step, u.generation, nil, f
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

func (l *updateLog) forget() { l.copied, l.updates, l.summed, l.bytes, l.logging = nil, nil, nil, 0, false }

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

// at returns the copy, if it is of that step, once it is there.
func (l *updateLog) at(step int64) *stateCopy {
	l.mu.Lock()
	c := l.copied
	l.mu.Unlock()
	if c == nil || c.step != step {
		return nil
	}
	if <-c.taken; c.err != nil {
		return nil
	}
	return c
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

func (r *logReader) join() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.readers) == maxReaders {
		return status.Errorf(codes.ResourceExhausted, "%d spares catch up with this member already", maxReaders)
	}
	r.readers[r] = true
	return nil
}

// leave ends a reader. The log ends with the last one.
func (r *logReader) leave() {
	r.change(func() {
		if delete(r.readers, r); len(r.readers) == 0 {
			r.forget()
			r.wanted = false
			r.room.free()
		}
	})
}

// send is the whole service for one spare.
func (l *updateLog) send(ctx context.Context, send func(*proto.Update) error) error {
	r := &logReader{updateLog: l, out: send, passed: -1}
	if err := r.join(); err != nil {
		return err
	}
	defer r.leave()
	c, err := r.copyOf(ctx)
	if err != nil {
		return err
	}
	if err := r.out(&proto.Update{Step: c.step, High: c.fingerprint.Hi, Low: c.fingerprint.Lo}); err != nil {
		return err
	}
	for next := c.step + 1; ; next++ {
		u, err := r.next(ctx, next, true)
		if err == nil {
			err = r.pass(ctx, u)
		}
		if err != nil {
			return err
		}
		r.passes(u)
	}
}

// logReader sends a log to one spare.
type logReader struct {
	*updateLog
	out            func(*proto.Update) error
	replacedBefore int64
	sent           int64 // the generation that the spare knows of
	passed         int64 // the step up to which it has state and steps; negative: it waits for a copy
	sentBytes      int64 // of the words of steps
}

var (
	errReplaced = errors.New("this member goes on from another state")
	errBehind   = errors.New("the caller has fallen too far behind: the steps that it lacks are not kept any more")
)

// await waits until ready, which is called with the log locked, says so or fails; meanwhile it sends signs of life.
func (r *logReader) await(ctx context.Context, ready func() (bool, error)) error {
	for {
		r.mu.Lock()
		is, err := ready()
		changed, sign := r.changed, &proto.Update{Newest: r.step, Generation: r.generation}
		r.mu.Unlock()
		if is || err != nil {
			return err
		}
		if sign.Generation != r.sent {
			if err := r.out(sign); err != nil {
				return err
			}
			r.sent = sign.Generation
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(signOfLife):
			if err := r.out(sign); err != nil {
				return err
			}
		}
	}
}

// copyOf returns the copy that the log begins with. If there is none, the next commit makes one, in memory that is made
// first.
func (r *logReader) copyOf(ctx context.Context) (c *stateCopy, err error) {
	if err := r.await(ctx, func() (bool, error) {
		if c, r.replacedBefore = r.copied, r.replaced; c == nil {
			r.wanted = r.wanted || r.hasRoom()
			return false, nil
		}
		r.passed = c.step
		return true, nil
	}); err != nil {
		return nil, err
	}
	select {
	case <-c.taken:
		return c, c.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// next waits for the update that makes the state of a step; early: also for one that is not committed.
func (r *logReader) next(ctx context.Context, step int64, early bool) (u *update, err error) {
	return u, r.await(ctx, func() (is bool, err error) {
		u, err = r.logged(step)
		if u == nil && early && r.summed != nil && r.summed.step == step {
			u = r.summed
		}
		return u != nil, err
	})
}

// logged returns the update of a step; nil: it is not committed yet. The log is locked.
func (r *logReader) logged(step int64) (*update, error) {
	kept := int64(len(r.updates)) // the steps up to the member's own
	switch {
	case r.replaced != r.replacedBefore:
		return nil, errReplaced
	case step > r.step:
		return nil, nil
	case step <= r.step-kept:
		return nil, errBehind
	}
	return r.updates[kept-1-(r.step-step)], nil
}

// pass sends an update: its head, its words in parts, and what it has led to as soon as that is known, however slowly
// the words are taken.
func (r *logReader) pass(ctx context.Context, u *update) error {
	r.mu.Lock()
	head := &proto.Update{Step: u.step, Newest: r.step, Generation: u.generation, Skipped: u.skipped, Weight: u.weight}
	r.mu.Unlock()
	r.sent = u.generation
	for _, s := range u.samples {
		head.Samples = append(head.Samples, uint32(s+1))
	}
	if err := r.out(head); err != nil {
		return err
	}
	known := false
	if err := proto.SendWords(u.exponents, u.words, func(p []byte) (err error) {
		if !known {
			if known, err = r.result(u.step); err != nil {
				return err
			}
		}
		return r.out(&proto.Update{Words: p})
	}); err != nil || known {
		return err
	}
	if _, err := r.next(ctx, u.step, false); err != nil {
		return err
	}
	_, err := r.result(u.step)
	return err
}

// passes records that the spare has been sent a step that is committed.
func (r *logReader) passes(u *update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed, r.sentBytes = u.step, r.sentBytes+int64(8*len(u.words))
	r.release()
}

// result sends what a step has led to; false: it is not committed yet.
func (r *logReader) result(step int64) (sent bool, err error) {
	r.mu.Lock()
	u, err := r.logged(step)
	if u == nil || err != nil {
		r.mu.Unlock()
		return false, err
	}
	led := &proto.Update{Step: step, High: u.fingerprint.Hi, Low: u.fingerprint.Lo, Newest: r.step,
		Generation: u.generation, Changing: u.changing}
	r.mu.Unlock()
	r.sent = u.generation
	return true, r.out(led)
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
		copied.state = state.SealQuickly(s)
		copied.sealed = sync.OnceValue(func() *state.Sealed {
			if s.Fingerprint() != copied.fingerprint {
				return nil
			}
			return state.Seal(s)
		})
	})
}
