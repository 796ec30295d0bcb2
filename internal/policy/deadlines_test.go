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
	for _, backoff := range backoffs {
		var all []Deadlines
		for _, median := range medians {
			for _, seen := range []int{-1, 0, 2, 3, 33} {
				all = append(all, NewDeadlines(median, seen, backoff))
			}
		}
		for _, a := range all {
			for _, b := range all {
				if a.Connect <= 0 || a.Connect >= b.Fetch || a.Fetch >= b.Open || a.Open >= b.Step || a.Suspect <= 0 ||
					a.Suspect >= a.Step {
					t.Fatalf("backoff %d: %+v and %+v in one world", backoff, a, b)
				}
			}
		}
	}
}

// TestBackoffDoublesAll: a backoff doubles every deadline, also its minimum.
func TestBackoffDoublesAll(t *testing.T) {
	for _, seen := range []int{0, 3} {
		for backoff := range MaxBackoff {
			d, e := NewDeadlines(time.Millisecond, seen, backoff), NewDeadlines(time.Millisecond, seen, backoff+1)
			if want := (Deadlines{2 * d.Connect, 2 * d.Fetch, 2 * d.Open, 2 * d.Step, 2 * d.Suspect}); e != want {
				t.Errorf("backoff %d gives %+v, %d gives %+v, want %+v", backoff, d, backoff+1, e, want)
			}
		}
	}
}
