package allreduce

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"sync"
	"time"
)

// Config is a member's place in its ring. All fields but Rank must be equal on all members.
type Config struct {
	Job          string // the job's UUID
	Generation   int64
	Rank, Size   int
	Members      []string // ids by rank, for errors; may be shorter than Size
	SegmentBytes int      // the most payload bytes in a frame; 0: DefaultSegmentBytes
	WindowBytes  int      // the most bytes of its own that a member has in flight; 0: DefaultWindowBytes
}

// The sizes that were fastest in the measurements of ARCHITECTURE.md, Costs of the ring.
const (
	DefaultSegmentBytes = 60 << 10
	DefaultWindowBytes  = 512 << 10
)

func (c *Config) member(rank int) string {
	if rank >= 0 && rank < len(c.Members) {
		return c.Members[rank]
	}
	return fmt.Sprintf("rank %d", rank)
}

func (c *Config) left() int  { return (c.Rank + c.Size - 1) % c.Size }
func (c *Config) right() int { return (c.Rank + 1) % c.Size }

// Ring is one member's end of a ring. One goroutine at a time calls Sum; any goroutine may call the other methods.
// Close or Abort must end it.
type Ring struct {
	cfg   Config
	left  Receiver
	right Sender

	in, out      checksum     // of the payload received and of the one passed on
	carry        [stripe]byte // a stripe that arrived in several pieces
	expect, sent header       // the constant fields of frames from the left and to the right
	sequence     int64

	begin chan context.Context // a Sum hands its deadline to the watchdog,
	end   chan struct{}        // and takes it back
	over  chan struct{}        // closed when the ring is poisoned or closed

	watchers sync.WaitGroup

	mu      sync.Mutex
	err     error // why the ring is poisoned
	closed  bool
	running bool
	place   place
}

// place is where a running Sum stands.
type place struct {
	plan    plan
	step    int64
	sending bool
	frame   int
	since   time.Time
}

// New returns a ring over two links and owns them from then on, also when it fails: left brings frames from the left
// neighbour, right takes frames to the right one. A world of one needs neither.
func New(cfg Config, left Receiver, right Sender) (*Ring, error) {
	r := &Ring{cfg: cfg, left: left, right: right, begin: make(chan context.Context), end: make(chan struct{}),
		over: make(chan struct{})}
	if err := r.configure(); err != nil {
		r.breakLinks(err)
		return nil, err
	}
	if cfg.Size > 1 {
		r.watchers.Go(r.watchDeadline)
		r.watchers.Go(func() { r.watchLink(left, "receive") })
		r.watchers.Go(func() { r.watchLink(right, "send") })
	}
	return r, nil
}

func (r *Ring) configure() error {
	c := &r.cfg
	if c.SegmentBytes == 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.WindowBytes == 0 {
		c.WindowBytes = DefaultWindowBytes
	}
	switch {
	case c.Size < 1 || c.Size > maxSize || c.Rank < 0 || c.Rank >= c.Size:
		return fmt.Errorf("allreduce: rank %d of %d members: expected 0 <= rank < size <= %d", c.Rank, c.Size, maxSize)
	case c.SegmentBytes < width || c.WindowBytes < 0:
		return fmt.Errorf("allreduce: segments of %d bytes and a window of %d: expected at least one element of %d "+
			"bytes, and no negative window", c.SegmentBytes, c.WindowBytes, width)
	case c.Size > 1 && (r.left == nil || r.right == nil):
		return fmt.Errorf("allreduce: rank %d of %d members needs a left and a right link", c.Rank, c.Size)
	case !littleEndian():
		return errors.New(
			"allreduce: this machine is big-endian; the wire format is little-endian and is not converted")
	}
	job := fnv.New64a()
	_, _ = io.WriteString(job, c.Job)
	r.sent = header{job: job.Sum64(), generation: c.Generation, rank: uint16(c.Rank), size: uint16(c.Size)}
	r.expect = r.sent
	r.expect.rank = uint16(c.left())
	return nil
}

// Sum replaces buf by the sum over all members. All members call it in the same order, with the same step and the same
// length of buf. ctx carries the deadline.
//
// After the return, also of an error, the ring does not use buf. After an error the content of buf is undefined, the
// ring is poisoned, both neighbours learn it, and later Sums return the same *Error.
func (r *Ring) Sum(ctx context.Context, step int64, buf []int64) error {
	if err := r.start(step, len(buf)); err != nil {
		return err
	}
	defer r.stop()
	if r.cfg.Size == 1 {
		return ctx.Err()
	}
	select {
	case r.begin <- ctx:
	case <-r.over:
		return r.Err()
	}
	if err := r.exchange(bytesOf(buf)); err != nil {
		return err
	}
	select {
	case r.end <- struct{}{}:
	case <-r.over: // The sum is complete all the same.
	}
	return nil
}

// exchange sends and receives the frames of one Sum. Frame i passes on what frame i-segments brought, and is sent as
// soon as that one has arrived.
func (r *Ring) exchange(buf []byte) error {
	p := r.place.plan
	frames := p.frames()
	for i := range frames + p.segments {
		var frame, out []byte // frame i and its payload
		lo, hi := 0, 0
		if i < frames {
			lo, hi = p.span(r.cfg.Rank, i)
			frame = r.right.Buffer(headerBytes + (hi-lo)*width)
			out = frame[headerBytes:]
		}
		if i >= p.segments {
			if err := r.receive(p, i-p.segments, buf, out); err != nil {
				return r.fail("receive", kindOf(err), err)
			}
		}
		if i < frames {
			if p.hop(i) == 0 {
				r.out = checksum{}
				copyChecked(out, buf[lo*width:hi*width], &r.out)
				r.sent.checksum = r.out.digest()
			}
			r.sent.number, r.sent.payload = uint32(i), uint32(len(out))
			r.sent.encode(frame)
			r.moveTo(true, i)
			if err := r.right.Send(); err != nil {
				return r.fail("send", kindOf(err), err)
			}
		}
	}
	return nil
}

// receive takes frame i from the left neighbour. In the reduce-scatter it adds this member's part. The last hop of the
// reduce-scatter and all of the all-gather bring parts of the result. All hops but the last write what the next frame
// passes on to out, and its checksum to r.sent.
func (r *Ring) receive(p plan, i int, buf, out []byte) error {
	r.moveTo(false, i)
	pieces, err := r.left.Recv()
	if err == io.EOF {
		err = errors.New("it closed the ring in good order, but this sum is not complete")
	}
	if err != nil {
		return err
	}
	h, payload, err := decodeHeader(pieces)
	if err != nil {
		return err
	}
	lo, hi := p.span(r.cfg.left(), i)
	own := buf[lo*width : hi*width]
	r.expect.number, r.expect.payload = uint32(i), uint32(len(own))
	if err := h.check(&r.expect); err != nil {
		return err
	}
	hop, reduced, last := p.hop(i), p.size-2, p.hops()-1
	to := own // where the elements go; incomplete sums are only passed on
	if hop < reduced {
		to = out
	}
	r.in, r.out = checksum{}, checksum{}
	eachStripes(payload, &r.carry, func(at int, b []byte) {
		end := at + len(b)
		if hop <= reduced {
			addInt64(to[at:end], own[at:end], b, &r.in, &r.out)
		} else {
			copyChecked(to[at:end], b, &r.in)
		}
		if hop >= reduced && hop < last {
			copy(out[at:end], to[at:end])
		}
	})
	if hop <= reduced {
		r.sent.checksum = r.out.digest()
	} else {
		r.sent.checksum = h.checksum
	}
	return h.intact(&r.in)
}

// start admits one Sum at a time to a ring that is neither poisoned nor closed.
func (r *Ring) start(step int64, length int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.err != nil:
		return r.err
	case r.closed, r.running:
		e := &Error{Kind: Aborted, Edge: r.edge(""), Err: errors.New("Sum was called while another Sum runs: call " +
			"it from one goroutine")}
		if r.closed {
			e.Err = errors.New("Sum was called on a closed ring: open the next generation's")
		}
		return e
	}
	r.running = true
	r.sequence++
	r.place = place{plan: newPlan(length, r.cfg.Size, r.cfg.SegmentBytes/width, r.cfg.WindowBytes/width),
		step: step, since: time.Now()}
	for _, h := range []*header{&r.sent, &r.expect} {
		h.sequence, h.step, h.length = r.sequence, step, uint64(length)
	}
	return nil
}

func (r *Ring) stop() {
	r.mu.Lock()
	r.running = false
	r.mu.Unlock()
}

// moveTo records what the running Sum waits for next.
func (r *Ring) moveTo(sending bool, frame int) {
	r.mu.Lock()
	r.place.sending, r.place.frame, r.place.since = sending, frame, time.Now()
	r.mu.Unlock()
}
