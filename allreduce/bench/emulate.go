package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"evenweave/allreduce"
)

// network is what an emulated link costs. Time is virtual: every member has a clock, every frame carries its time of
// arrival, and no member sleeps. The ring's own code runs, so that the growth with the world size is exact and without
// noise. The last two fields model the time of its computing.
type network struct {
	latency   time.Duration // one way
	perByte   float64       // nanoseconds on the wire
	hostFrame time.Duration // of a member's processor for each frame sent or received
	hostByte  float64       // nanoseconds, likewise for each byte
}

// The loopback benchmark measures host costs of this order for a member with a core of its own.
var networks = map[string]network{
	// 10 Gbit/s and 1 Gbit/s
	"lan": {latency: 50 * time.Microsecond, perByte: 0.8, hostFrame: 10 * time.Microsecond, hostByte: 0.25},
	"wan": {latency: 10 * time.Millisecond, perByte: 8, hostFrame: 10 * time.Microsecond, hostByte: 0.25},
}

// emulated measures a world of members in this process, joined by emulated links.
func emulated(ctx context.Context, o Options, size int, out *printer) error {
	net, ok := networks[o.Network]
	if !ok {
		return fmt.Errorf("network %q, expected lan or wan", o.Network)
	}
	for _, bytes := range o.sizes(size) {
		took, err := emulate(ctx, net, o, size, bytes)
		if err != nil {
			return err
		}
		row := Row{Network: o.Network, Workers: size, Bytes: bytes, Task: o.Task}
		row.fill([]int64{took.Nanoseconds()})
		if err := out.row(row); err != nil {
			return err
		}
	}
	return nil
}

// emulate returns the virtual time of one sum, after one that puts all members in step.
func emulate(ctx context.Context, net network, o Options, size, bytes int) (time.Duration, error) {
	clocks := make([]clock, size)
	lefts, rights := make([]allreduce.Receiver, size), make([]allreduce.Sender, size)
	for i := range size {
		w := &wire{net: net, frames: make(chan arrival, 1<<12), over: make(chan struct{})}
		next := (i + 1) % size
		rights[i], lefts[next] = &wireSender{wire: w, clock: &clocks[i]}, &wireReceiver{wire: w, clock: &clocks[next]}
	}
	var all sync.WaitGroup
	errs := make([]error, size)
	begun, ended := make([]time.Duration, size), make([]time.Duration, size)
	for i := range size {
		all.Go(func() {
			ring, err := allreduce.New(allreduce.Config{Job: "bench", Rank: i, Size: size, SegmentBytes: o.Segment,
				WindowBytes: o.Window}, lefts[i], rights[i])
			if err != nil {
				errs[i] = err
				return
			}
			buf := make([]int64, bytes/8)
			errs[i] = ring.Sum(ctx, 0, buf)
			begun[i] = clocks[i].now
			errs[i] = errors.Join(errs[i], ring.Sum(ctx, 1, buf))
			ended[i] = clocks[i].now
			errs[i] = errors.Join(errs[i], ring.Close(ctx))
		})
	}
	all.Wait()
	var longest time.Duration
	for i := range size {
		longest = max(longest, ended[i]-begun[i])
	}
	return longest, errors.Join(errs...)
}

// clock is a member's time. Only the goroutine of its Sum uses it.
type clock struct{ now time.Duration }

func (c *clock) work(n network, bytes int) {
	c.now += n.hostFrame + time.Duration(float64(bytes)*n.hostByte)
}

type arrival struct {
	frame []byte
	at    time.Duration
}

// wire is one emulated link.
type wire struct {
	net    network
	free   time.Duration // when the last frame has left; the sender's
	frames chan arrival
	over   chan struct{} // closed when it is broken or closed
	once   sync.Once
	err    error
}

func (w *wire) end(err error)     { w.once.Do(func() { w.err = err; close(w.over) }) }
func (w *wire) Abort(cause error) { w.end(cause) }

func (w *wire) Wait() error { <-w.over; return w.err }

func (w *wire) Close(context.Context) error { w.end(nil); return nil }

type wireSender struct {
	*wire
	clock *clock
	next  []byte
}

func (s *wireSender) Buffer(n int) []byte { s.next = make([]byte, n); return s.next }

func (s *wireSender) Send() error {
	s.clock.work(s.net, len(s.next))
	s.free = max(s.free, s.clock.now) + time.Duration(float64(len(s.next))*s.net.perByte)
	select {
	case s.frames <- arrival{s.next, s.free + s.net.latency}:
		return nil
	case <-s.over:
		return s.err
	}
}

type wireReceiver struct {
	*wire
	clock  *clock
	pieces [1][]byte
}

func (r *wireReceiver) Recv() ([][]byte, error) {
	var a arrival
	select {
	case a = <-r.frames:
	case <-r.over:
		select {
		case a = <-r.frames: // Frames that were sent before the end still arrive.
		default:
			if r.err != nil {
				return nil, r.err
			}
			return nil, io.EOF
		}
	}
	r.clock.now = max(r.clock.now, a.at)
	r.clock.work(r.net, len(a.frame))
	r.pieces[0] = a.frame
	return r.pieces[:], nil
}
