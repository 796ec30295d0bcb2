package bench

import (
	"io"
	"testing"
)

// TestFramesBeforeTheEndArrive: the end of a wire takes no frame away that was sent before, whichever of the two its
// reader learns of first.
func TestFramesBeforeTheEndArrive(t *testing.T) {
	for range 100 {
		w := &wire{frames: make(chan arrival, 2), over: make(chan struct{})}
		s, r := &wireSender{wire: w, clock: &clock{}}, &wireReceiver{wire: w, clock: &clock{}}
		for range 2 {
			s.Buffer(1)
			if err := s.Send(); err != nil {
				t.Fatal(err)
			}
		}
		w.end(nil)
		for range 2 {
			if _, err := r.Recv(); err != nil {
				t.Fatalf("a frame is lost: %v", err)
			}
		}
		if _, err := r.Recv(); err != io.EOF {
			t.Fatalf("after the last frame: %v, expected io.EOF", err)
		}
	}
}
