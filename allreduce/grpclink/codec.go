// Package grpclink carries a ring's frames over gRPC: one long-lived stream from each member to its right neighbour.
// The sender is the gRPC client, the handler of its stream the receiver.
//
// A stream begins with a Hello, which the receiving member checks before a frame is sent. It ends in good order when
// the sender half-closes it and the handler, after the last frame, returns OK: a leaving member waits for this
// acknowledgement. It breaks at once for both ends when either cancels it or its connection is lost.
//
// gRPC does not copy frames: a codec gives it the pooled buffer that the ring has filled, and gRPC returns it when the
// bytes are on the wire.
package grpclink

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecName is the content subtype by which a server knows that a stream's messages are raw bytes.
const codecName = "evenweave-frame"

func init() { encoding.RegisterCodecV2(codec{}) }

// codec passes bytes through.
type codec struct{}

// outgoing is a message to send: a buffer that goes back to its pool when gRPC has written it.
type outgoing struct {
	bytes *[]byte
	pool  mem.BufferPool
}

// incoming is a received message, which its reader frees.
type incoming struct{ pieces mem.BufferSlice }

func (codec) Name() string { return codecName }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	out, ok := v.(*outgoing)
	if !ok {
		return nil, fmt.Errorf("grpclink: a message of type %T on a ring's stream, expected raw bytes", v)
	}
	return mem.BufferSlice{mem.NewBuffer(out.bytes, out.pool)}, nil
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	in, ok := v.(*incoming)
	if !ok {
		return fmt.Errorf("grpclink: a message of type %T on a ring's stream, expected raw bytes", v)
	}
	data.Ref()
	in.pieces = data
	return nil
}

// minBuffer is the least capacity of a buffer: gRPC does not give much smaller ones back to their pool.
const minBuffer = 4 << 10

// pool keeps the buffers of one sender. There are as many as its ring has frames in flight.
type pool struct {
	mu   sync.Mutex
	free []*[]byte
}

// Get returns a buffer of n bytes with any content.
func (p *pool) Get(n int) *[]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.free) > 0 {
		b := p.free[len(p.free)-1]
		p.free = p.free[:len(p.free)-1]
		if cap(*b) >= n {
			*b = (*b)[:n]
			return b
		} // too small for this frame: drop it
	}
	b := make([]byte, n, max(n, minBuffer))
	return &b
}

// Put takes a buffer back. gRPC calls it from its own goroutines.
func (p *pool) Put(b *[]byte) {
	p.mu.Lock()
	p.free = append(p.free, b)
	p.mu.Unlock()
}
