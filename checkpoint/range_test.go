package checkpoint

import (
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

// A part of a payload is read from where it begins; a file that was never verified is verified first.
func TestReadRange(t *testing.T) {
	fs := newMemFS(rand.New(rand.NewPCG(1, 1)))
	s := open(t, dir, Options{FS: fs})
	path := mustSave(t, s, 5, 1)
	whole := payloadOf(5)
	for _, fresh := range []bool{false, true} {
		if fresh {
			s = open(t, dir, Options{FS: fs})
		}
		for _, c := range []struct{ offset, length int64 }{{0, 0}, {0, 7}, {3, 0}, {3, 7}, {int64(len(whole)) - 2, 100},
			{int64(len(whole)), 0}, {1 << 40, 5}} {
			r, err := s.ReadRange(t.Context(), path, c.offset, c.length)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			from := min(c.offset, int64(len(whole)))
			to := int64(len(whole))
			if c.length > 0 {
				to = min(to, from+c.length)
			}
			if err != nil || string(got) != whole[from:to] || r.Close() != nil {
				t.Errorf("%d bytes from %d: got %d, %v", c.length, c.offset, len(got), err)
			}
		}
	}
	if _, err := s.ReadRange(t.Context(), path+"x", 0, 0); !errors.As(err, new(*DamagedError)) {
		t.Errorf("no file: %v", err)
	}
}
