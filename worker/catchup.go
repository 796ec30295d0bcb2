package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	catchUpQuiet = 2 * time.Minute  // a try ends after so long without a state, a step or a part of one
	catchUpPace  = time.Second      // that 1 MiB of a state may take in the first try; the second accepts a quarter
	catchUpCopy  = 10 * time.Minute // signs of life count too for so long, while the other member copies its state
	catchUpTries = 3                // in one generation, or without a state; then the spare enters a world as it is
	catchUpPause = time.Second      // before the next try, if the other member refuses this one
	lastStep     = time.Second      // a world's first exchange waits for the last step for so long
	catchUpStays = 30 * time.Second // a spare that has caught up goes on for so long while no world uses it

	// lastPace is what 1 MiB of the last step may take while the world waits for it: a ring sends twice as much a step.
	lastPace = 250 * time.Millisecond
)

// catchUp fetches a state for a spare, and the steps since, from a member of the world, which trains on meanwhile. The
// loop, to which the replica belongs, takes what arrives.
type catchUp struct {
	from      job.Peer
	keys      []string      // that it has registered
	pace      time.Duration // of its state's blocks; 0: any, for there is no other member to turn to, or no more try
	total     int64         // steps of the job
	watchdog  *time.Timer   // set before the other member is asked
	arrivals  chan arrival  // closed at the end; err says why
	seen      atomic.Pointer[position]
	stepNanos atomic.Int64  // the median of the other member's steps; 0: not known
	turned    chan struct{} // signals that the other member leaves its generation
	ahead     *ahead        // memory; the fetch takes it
	memory    chan []int64  // for the words of one update: the loop gives it back
	parts     atomic.Int64  // that have arrived
	owed      int64         // the step of which it is not known yet what it has led to; 0: none
	early     *proto.Update // that, if it came among the step's words
	cancel    context.CancelFunc
	err       error

	// The loop's:
	ready  bool      // this member has the state of the other one's step
	warned bool      // that the other one cannot be asked
	since  time.Time // when it first had
}

// arrival is a state, an update, the state that the update before has led to, or only the step at which the other
// member stands.
type arrival struct {
	state  *state.State
	update *update
	led    *ledTo
	newest int64
	asked  bool  // newest is the answer to a question, and not what the other member said some time ago
	failed error // to ask: newest is what it said
}

// ledTo is what a step has led to.
type ledTo struct {
	step        int64
	fingerprint state.Fingerprint
}

// position is where the other member trains.
type position struct {
	generation int64
	last       int64 // the step after which it leaves; 0: not known
}

// ahead is memory for a catch-up: the state, and the words of a step.
type ahead struct {
	image []byte
	words []int64
}

// newAhead makes the kernel give the memory now, and not while the others wait for this member. nil: ctx has ended.
func newAhead(ctx context.Context, r *replica) *ahead {
	a := &ahead{make([]byte, r.layout.Size), make([]int64, r.blocks.Words()+r.blocks.Count())}
	needed := func(time.Duration) bool { return ctx.Err() == nil }
	if !touch(a.image, needed) || !touch(a.words, needed) {
		return nil
	}
	return a
}

// stop ends the catch-up, if there is one.
func (c *catchUp) stop() {
	if c == nil {
		return
	}
	c.cancel()
	for range c.arrivals {
	}
}

// run receives until something fails.
func (c *catchUp) run(ctx context.Context, f fetcher, uuid string, r *replica) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c.watchdog = time.AfterFunc(catchUpQuiet, func() { cancel(errCatchUpQuiet) })
	defer c.watchdog.Stop()
	next, err := f.Updates(ctx, c.from.Address, c.keys, uuid)
	if err != nil {
		return err
	}
	receive := func() (*proto.Update, error) {
		u, err := next()
		if err != nil && context.Cause(ctx) != nil {
			return nil, context.Cause(ctx)
		}
		if err == nil && u.StepNanos > 0 {
			c.stepNanos.Store(u.StepNanos)
		}
		if err == nil && u.Generation > 0 {
			p := position{generation: u.Generation}
			if u.Changing {
				p.last = u.Step
			}
			c.sees(p)
		}
		return u, err
	}
	first, err := c.first(receive)
	if err != nil {
		return err
	}
	if c.ahead == nil {
		if c.ahead = newAhead(ctx, r); c.ahead == nil { // a world uses this member, and waits
			return context.Cause(ctx)
		}
	}
	c.memory <- c.ahead.words
	s, err := c.state(ctx, f, uuid, first)
	if err != nil {
		return err
	}
	have, a := s.Step, arrival{state: s, newest: s.Step + 1} // at least one more step follows
	for s = nil; err == nil; a, err = c.step(ctx, r, receive) {
		if a.update != nil {
			have = a.update.step
		}
		// a sign of life alone is no step
		moves := a.state != nil || a.update != nil || a.led != nil || have >= a.newest
		said, applied := a.newest, a.state == nil && a.update == nil // the loop takes this after what was before
		if err := c.hand(ctx, a, moves); err != nil {
			return err
		}
		if a = (arrival{}); applied {
			if err := c.ask(ctx, f, uuid, have, said); err != nil {
				return err
			}
		}
	}
	return err
}

// ask asks the other member at which step it is, and gives the loop the answer: if it refuses, as older members do,
// what it said before. have is this member's step.
func (c *catchUp) ask(ctx context.Context, f fetcher, uuid string, have, said int64) error {
	if at := c.seen.Load(); at != nil && at.last > 0 {
		return nil // the last step must not wait for an answer
	}
	a := arrival{newest: said, asked: true}
	newest, err := f.Newest(ctx, c.from.Address, c.keys, uuid)
	switch status.Code(err) {
	case codes.OK:
		a.newest = newest
	case codes.PermissionDenied, codes.Unimplemented:
		a.failed = err
	default: // the next step, or sign of life, asks again
		return nil
	}
	return c.hand(ctx, a, have >= a.newest)
}

// hand gives the loop an arrival.
func (c *catchUp) hand(ctx context.Context, a arrival, moves bool) error {
	if moves {
		c.watchdog.Stop() // the loop may be busy
		defer c.watchdog.Reset(catchUpQuiet)
	}
	select {
	case c.arrivals <- a:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errCatchUpQuiet = fmt.Errorf("nothing has come for %v", catchUpQuiet)

// sees records where the other member is, and wakes the loop if it leaves its generation.
func (c *catchUp) sees(p position) {
	before := c.seen.Load()
	if before != nil && before.generation == p.generation {
		p.last = max(p.last, before.last) // a sign of life does not say it
	}
	c.seen.Store(&p)
	if p.last > 0 || before != nil && before.generation != p.generation {
		select {
		case c.turned <- struct{}{}:
		default:
		}
	}
}

// first receives what names the state to begin with.
func (c *catchUp) first(receive func() (*proto.Update, error)) (*proto.Update, error) {
	for began := time.Now(); ; {
		u, err := receive()
		switch {
		case err != nil:
			return nil, err
		case time.Since(began) < catchUpCopy:
			c.watchdog.Reset(catchUpQuiet)
		}
		if u.High == 0 && u.Low == 0 {
			continue
		}
		if u.Step < 0 || u.Step > c.total {
			return nil, fmt.Errorf("a state of step %d: this job has %d", u.Step, c.total)
		}
		return u, nil
	}
}

// state fetches the state that the other member names first.
func (c *catchUp) state(ctx context.Context, f fetcher, uuid string, first *proto.Update) (*state.State, error) {
	image := c.ahead.image
	c.ahead = nil
	s, err := f.Fetch(ctx, Wanted{Job: uuid, Step: first.Step, Image: image,
		Peers: []string{c.from.Address}, Quiet: catchUpQuiet, Pace: c.pace,
		Keys: map[string][]string{c.from.Address: c.keys}, Quick: true, // that member announces the fingerprint, too
		Gone: func(err error) bool { return status.Code(err) == codes.NotFound || security.OtherKey(err) },
		Arrived: func(blocks int) {
			c.parts.Store(int64(blocks))
			c.watchdog.Reset(catchUpQuiet)
		}})
	if err != nil {
		return nil, err
	}
	if found, announced := s.Fingerprint(), (state.Fingerprint{Hi: first.High, Lo: first.Low}); found != announced {
		return nil, fmt.Errorf("the state of step %d has fingerprint %s, it announced %s", first.Step, found, announced)
	}
	return s, nil
}

// step receives an update, what one has led to, or the step at which the other member stands.
func (c *catchUp) step(ctx context.Context, r *replica, receive func() (*proto.Update, error)) (arrival, error) {
	head := c.early
	if c.early = nil; head == nil {
		var err error
		if head, err = receive(); err != nil {
			return arrival{}, err
		}
		c.parts.Add(1)
	}
	if head.Step == 0 {
		return arrival{newest: head.Newest}, nil
	}
	found := state.Fingerprint{Hi: head.High, Lo: head.Low}
	if leads := found != (state.Fingerprint{}); leads != (c.owed != 0) || leads && head.Step != c.owed {
		return arrival{}, fmt.Errorf("step %d with fingerprint %s has come; it is not known what step %d (0: none) "+
			"has led to", head.Step, found, c.owed)
	} else if leads {
		c.owed = 0
		return arrival{led: &ledTo{head.Step, found}, newest: head.Newest}, nil
	}
	u := &update{step: head.Step, skipped: head.Skipped, weight: head.Weight}
	for _, s := range head.Samples {
		u.samples = append(u.samples, int32(s)-1)
	}
	if c.owed = head.Step; !u.skipped {
		if err := c.words(ctx, u, r, receive); err != nil {
			return arrival{}, err
		}
	}
	return arrival{update: u, newest: head.Newest}, nil
}

// words receives an update's words. What it has led to may come among them.
func (c *catchUp) words(ctx context.Context, u *update, r *replica, receive func() (*proto.Update, error)) error {
	w := &proto.Words{Exponents: make([]int32, r.blocks.Count())}
	select {
	case w.Words = <-c.memory:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for !w.Complete() {
		part, err := receive()
		if err == nil && part.Step != 0 && c.early == nil {
			c.early = part
		} else if err == nil {
			err = w.Take(part.Words)
		}
		if err != nil {
			return err
		}
		c.parts.Add(1)
		c.watchdog.Reset(catchUpQuiet)
	}
	u.exponents, u.words = w.Exponents, w.Words
	return nil
}
