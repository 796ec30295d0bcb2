package grpclink

import (
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
)

// The transport's sizes. A window set by hand holds more than a ring ever has on its way, and spares the pings by which gRPC would guess it; large buffers spare system calls.
const (
	window      = 16 << 20
	writeBuffer = 128 << 10
	readBuffer  = 64 << 10
)

// DialOptions are the transport options of a ring's client; Dial sets them.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithWriteBufferSize(writeBuffer), grpc.WithReadBufferSize(readBuffer),
		experimental.WithBufferPool(new(framePool)),
	}
}

// ServerOptions are the transport options for a server that carries rings.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer),
		experimental.BufferPool(new(framePool)),
	}
}

// framePool keeps buffers of one HTTP/2 frame for gRPC's receiving side. Unlike gRPC's own it does not clear them, because all of a buffer is overwritten.
type framePool struct{ free sync.Pool }

const http2Frame = 16 << 10

func (p *framePool) Get(n int) *[]byte {
	if n <= http2Frame {
		if b, ok := p.free.Get().(*[]byte); ok {
			*b = (*b)[:n]
			return b
		}
	}
	b := make([]byte, n, max(n, http2Frame))
	return &b
}

func (p *framePool) Put(b *[]byte) {
	if cap(*b) == http2Frame {
		p.free.Put(b)
	}
}
