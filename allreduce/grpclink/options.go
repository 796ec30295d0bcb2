package grpclink

import (
	"math/bits"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// The transport's sizes. The window is fixed, so gRPC sends no pings to estimate one, and larger than what a ring has
// in flight. Large buffers save system calls.
const (
	window      = 2 << 20
	writeBuffer = 128 << 10
	readBuffer  = 64 << 10
)

// The most that a ring may have in flight over these streams (allreduce.Config). With more, all members could block in
// Send and wait for each other.
const (
	MaxSegmentBytes = 64 << 10
	MaxWindowBytes  = window / 2
)

const (
	maxFrame   = MaxSegmentBytes + 1<<10 // a segment with its header
	maxMessage = maxHello + 1<<10        // the stream's first message is the largest
	maxTrailer = 3 << 19                 // of a refusal, with a world's record in base64
)

// dialOptions are the transport options of a ring's client.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxFrame)), grpc.WithMaxHeaderListSize(maxTrailer),
		grpc.WithWriteBufferSize(writeBuffer), grpc.WithReadBufferSize(readBuffer),
		experimental.WithBufferPool(new(framePool)),
	}
}

// ServerOptions are the transport options for a server that carries rings, its limits among them.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer),
		experimental.BufferPool(new(framePool)),
	}
}

// framePool keeps buffers of one HTTP/2 frame for gRPC's receiving side, by powers of two, so that a small frame never
// takes a large buffer: otherwise a stranger could make one byte cost much memory. Unlike gRPC's own pool it does not
// clear buffers, because each is overwritten in full.
type framePool struct{ free [frameClasses]sync.Pool }

const (
	http2Frame   = 16 << 10
	frameClasses = 15 // 1 byte to http2Frame
)

// classOf is the power of two that holds n bytes, n >= 1.
func classOf(n int) int { return bits.Len(uint(n - 1)) }

func (p *framePool) Get(n int) *[]byte {
	if n < 1 || n > http2Frame {
		b := make([]byte, n)
		return &b
	}
	class := classOf(n)
	if b, ok := p.free[class].Get().(*[]byte); ok {
		*b = (*b)[:n]
		return b
	}
	b := make([]byte, n, 1<<class)
	return &b
}

func (p *framePool) Put(b *[]byte) {
	if n := cap(*b); n >= 1 && n <= http2Frame && n == 1<<classOf(n) {
		p.free[classOf(n)].Put(b)
	}
}
