package policy

import (
	"math"
	"testing"
	"time"
)

// TestDeadlinesKeepTheirOrder: between any two members of a world, whatever each has seen, and under every backoff that
// a record may hold.
func TestDeadlinesKeepTheirOrder(t *testing.T) {
	medians := []time.Duration{math.MinInt64, -1, 0, 1, time.Millisecond, 50 * time.Millisecond, time.Second,
		time.Minute, 24 * time.Hour, math.MaxInt64}
	backoffs := []int{math.MinInt, -1, 0, 1, 2, 3, 6, 7, 64, math.MaxInt}
	sizes := []int64{math.MinInt64, 0, 64 << 20, 12 << 30, math.MaxInt64}
	for i := range len(backoffs) * len(sizes) {
		backoff, size := backoffs[i/len(sizes)], sizes[i%len(sizes)] // all members of a world have these
		var all []Deadlines
		for _, median := range medians {
			for _, seen := range []int{-1, 0, 2, 3, 33} {
				all = append(all, NewDeadlines(median, seen, backoff, size))
			}
		}
		for _, a := range all {
			for _, b := range all {
				if a.Connect <= 0 || a.Connect >= b.Fetch || a.Fetch >= b.Open || a.Open >= b.Step || a.Suspect <= 0 ||
					a.Suspect >= a.Step {
					t.Fatalf("backoff %d, %d bytes: %+v and %+v in one world", backoff, size, a, b)
				}
			}
		}
	}
}

// TestBackoffDoublesAll: a backoff doubles every deadline, also its minimum.
func TestBackoffDoublesAll(t *testing.T) {
	for _, seen := range []int{0, 3} {
		for backoff := range MaxBackoff {
			d := NewDeadlines(time.Millisecond, seen, backoff, 12<<30)
			e := NewDeadlines(time.Millisecond, seen, backoff+1, 12<<30)
			if want := (Deadlines{2 * d.Connect, 2 * d.Fetch, 2 * d.Open, 2 * d.Step, 2 * d.Suspect}); e != want {
				t.Errorf("backoff %d gives %+v, %d gives %+v, want %+v", backoff, d, backoff+1, e, want)
			}
		}
	}
}

// TestALargeStateTakesItsTime: the deadlines of a fetch, an opening and a step grow with the state, and no other. Those
// of a small state are the floors.
func TestALargeStateTakesItsTime(t *testing.T) {
	for _, seen := range []int{0, 3} {
		small := NewDeadlines(time.Millisecond, seen, 0, 255<<20)
		if d := NewDeadlines(time.Millisecond, seen, 0, 0); d != small || d.Fetch != fetchFloor || d.Open != openFloor {
			t.Errorf("a small state: %+v and %+v", d, small)
		}
		const more = 48 * time.Second // 12 GiB at 256 MiB a second
		want := small
		want.Fetch, want.Open, want.Step = small.Fetch+more, small.Open+more, small.Step+more
		if d := NewDeadlines(time.Millisecond, seen, 0, 12<<30); d != want {
			t.Errorf("a large state: %+v, want %+v", d, want)
		}
	}
}
