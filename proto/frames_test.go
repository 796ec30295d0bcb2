package proto

import "testing"

// A frame takes no more memory than twice its size, whatever size the sender chose.
func TestSmallFramesGetSmallBuffers(t *testing.T) {
	p := new(FramePool)
	p.Put(p.Get(http2Frame)) // a small frame must not get a large frame's buffer
	for n := 1; n <= 4*http2Frame; n += 510 {
		b := p.Get(n)
		if len(*b) != n || cap(*b) > 2*n {
			t.Fatalf("%d bytes got %d of %d", n, len(*b), cap(*b))
		}
		p.Put(b)
	}
}
