// Package allreducetest tests rings and their links: in-memory links with chosen faults, and a suite of what every link
// must do.
package allreducetest

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"

	"evenweave/allreduce"
)

// Links are the two ends that one member holds.
type Links struct {
	Left  allreduce.Receiver
	Right allreduce.Sender
}

// Fault changes what a pipe carries. It gets each frame's number on its pipe and its bytes, which it may change, and
// returns the frames to deliver instead; none loses the frame.
type Fault func(number int, frame []byte) [][]byte

// Flip inverts one bit of a frame.
func Flip(number, bit int) Fault {
	return at(number, func(f []byte) [][]byte { f[bit/8%len(f)] ^= 1 << (bit % 8); return [][]byte{f} })
}

// Truncate cuts a frame short by some bytes.
func Truncate(number, bytes int) Fault {
	return at(number, func(f []byte) [][]byte { return [][]byte{f[:max(0, len(f)-bytes)]} })
}

// Extend appends bytes to a frame.
func Extend(number, bytes int) Fault {
	return at(number, func(f []byte) [][]byte { return [][]byte{append(f, make([]byte, bytes)...)} })
}

// Duplicate delivers a frame twice.
func Duplicate(number int) Fault {
	return at(number, func(f []byte) [][]byte { return [][]byte{f, append([]byte(nil), f...)} })
}

// Drop loses a frame.
func Drop(number int) Fault { return at(number, func([]byte) [][]byte { return nil }) }

// Stall loses a frame and all after it, as a network does that is cut silently.
func Stall(number int) Fault {
	return func(n int, f []byte) [][]byte {
		if n >= number {
			return nil
		}
		return [][]byte{f}
	}
}

func at(number int, change func([]byte) [][]byte) Fault {
	return func(n int, f []byte) [][]byte {
		if n == number {
			return change(f)
		}
		return [][]byte{f}
	}
}

// Pipe returns both ends of a link in memory that holds room frames. It delivers every frame in pieces cut by the seed,
// and overwrites a received frame when the next is received, so that a reader that keeps it fails. fault may be nil.
func Pipe(room int, seed uint64, fault Fault) (allreduce.Sender, allreduce.Receiver) {
	p := &pipe{frames: make(chan []byte, room), used: make(chan []byte, room+2), over: make(chan struct{}),
		ended: make(chan struct{}), left: make(chan struct{}), fault: fault}
	return &pipeSender{pipe: p}, &pipeReceiver{pipe: p, cuts: rand.New(rand.NewPCG(seed, 1))}
}

// Ring returns the links of a whole world in memory. fault, if not nil, acts on the link that leaves the given rank.
func Ring(size int, seed uint64, rank int, fault Fault) []Links {
	links := make([]Links, size)
	if size == 1 {
		return links
	}
	for i := range links {
		var f Fault
		if i == rank {
			f = fault
		}
		links[i].Right, links[(i+1)%size].Left = Pipe(8, seed+uint64(i), f)
	}
	return links
}

// pipe is what both ends share.
type pipe struct {
	frames chan []byte   // closed by the sender's Close, which acknowledges them: nothing can lose them
	used   chan []byte   // received frames, whose memory the sender fills again
	ended  chan struct{} // closed by the sender's Close
	left   chan struct{} // closed by the receiver's Close
	over   chan struct{} // closed when the pipe is broken
	fault  Fault

	once, leave sync.Once
	err         error // why it is broken; set before over is closed
}

func (p *pipe) Abort(cause error) {
	p.once.Do(func() { p.err = &allreduce.PeerAbort{Cause: cause.Error()}; close(p.over) })
}

func (p *pipe) Wait() error {
	select {
	case <-p.over:
		return p.err
	case <-p.ended:
	case <-p.left:
	}
	return nil
}

type pipeSender struct {
	*pipe
	number int
	next   []byte
}

func (s *pipeSender) Buffer(n int) []byte {
	select {
	case s.next = <-s.used:
	default:
		s.next = nil
	}
	if cap(s.next) < n {
		s.next = make([]byte, n)
	}
	s.next = s.next[:n]
	return s.next
}

func (s *pipeSender) Send() error {
	if s.fault == nil {
		return s.deliver(s.next)
	}
	frames := s.fault(s.number, s.next)
	s.number++
	for _, f := range frames {
		if err := s.deliver(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *pipeSender) deliver(frame []byte) error {
	select {
	case s.frames <- frame:
		return nil
	case <-s.over:
		return s.err
	case <-s.left:
		return errors.New("the receiver was closed in good order")
	}
}

func (s *pipeSender) Close(context.Context) error {
	close(s.frames)
	close(s.ended)
	return nil
}

type pipeReceiver struct {
	*pipe
	cuts   *rand.Rand
	last   []byte
	pieces [][]byte
}

func (r *pipeReceiver) Recv() ([][]byte, error) {
	if r.last != nil {
		for i := range r.last {
			r.last[i] = 0xA5
		}
		select {
		case r.used <- r.last:
		default:
		}
		r.last = nil
	}
	select { // A broken pipe may lose sent frames, as a network does.
	case <-r.over:
		return nil, r.err
	default:
	}
	select {
	case <-r.over:
		return nil, r.err
	case f, ok := <-r.frames:
		if !ok {
			return nil, io.EOF
		}
		r.last = f
		return r.cut(f), nil
	}
}

// cut splits a frame anywhere, with empty pieces now and then.
func (r *pipeReceiver) cut(f []byte) [][]byte {
	r.pieces = r.pieces[:0]
	for len(f) > 0 {
		n := 1 + r.cuts.IntN(len(f))
		if r.cuts.IntN(4) == 0 {
			n = min(len(f), r.cuts.IntN(20))
		}
		r.pieces = append(r.pieces, f[:n])
		f = f[n:]
	}
	return r.pieces
}

func (r *pipeReceiver) Close(context.Context) error {
	r.leave.Do(func() { close(r.left) })
	return nil
}
