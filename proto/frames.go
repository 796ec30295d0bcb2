package proto

import (
	"math/bits"
	"sync"
)

// FramePool keeps buffers of one HTTP/2 frame for gRPC's receiving side, by powers of two, so that a small frame never
// takes a large buffer: otherwise a stranger could make one byte cost much memory. Unlike gRPC's own pool it does not
// clear buffers, because each is overwritten in full.
type FramePool struct{ free [frameClasses]sync.Pool }

const (
	http2Frame   = 16 << 10
	frameClasses = 15 // 1 byte to http2Frame
)

// classOf is the power of two that holds n bytes, n >= 1.
func classOf(n int) int { return bits.Len(uint(n - 1)) }

// Get implements mem.BufferPool.
func (p *FramePool) Get(n int) *[]byte {
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

// Put implements mem.BufferPool.
func (p *FramePool) Put(b *[]byte) {
	if n := cap(*b); n >= 1 && n <= http2Frame && n == 1<<classOf(n) {
		p.free[classOf(n)].Put(b)
	}
}
