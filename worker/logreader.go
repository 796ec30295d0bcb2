package worker

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/proto"
)

const (
	maxReaders = 4                // spares that catch up with one member at the same time
	lastWords  = 10 * time.Second // a member that leaves waits so long for spares that take its last step
)

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

func (r *logReader) join() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.readers) == maxReaders {
		return status.Errorf(codes.ResourceExhausted, "%d spares catch up with this member already", maxReaders)
	}
	r.readers[r] = true
	return nil
}

// leave ends a reader. The log ends with the last one, and the wish for a copy with the last that waits for one.
func (r *logReader) leave() {
	r.change(func() {
		delete(r.readers, r)
		waits := false
		for other := range r.readers {
			waits = waits || other.passed < 0
		}
		if r.wanted = r.wanted && waits; len(r.readers) == 0 {
			r.forget()
			r.room.free()
		}
	})
}

// drain waits until no spare reads the log, but not for those that wait for a copy. A spare ends its stream when its
// world has opened: what was sent before may still be on its way.
func (l *updateLog) drain(ctx context.Context, limit time.Duration) {
	late := time.After(limit)
	for {
		l.mu.Lock()
		reading, changed := false, l.changed
		for r := range l.readers {
			reading = reading || r.passed >= 0
		}
		l.mu.Unlock()
		if !reading {
			return
		}
		select {
		case <-changed:
		case <-late:
			return
		case <-ctx.Done():
			return
		}
	}
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

// await waits until ready, which is called with the log locked, says so or fails; meanwhile it sends signs of life.
func (r *logReader) await(ctx context.Context, ready func() (bool, error)) error {
	for {
		r.mu.Lock()
		is, err := ready()
		changed, sign := r.changed, &proto.Update{Newest: r.step, Generation: r.generation, StepNanos: int64(r.median)}
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
