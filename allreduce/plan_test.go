package allreduce

import (
	"math/rand/v2"
	"testing"
)

// checkPlan proves that a plan is valid: in each hop a member receives exactly the range that its left neighbour sends,
// frame i passes on what frame i-segments brought, and at the end every member holds every element, summed once over
// all members.
func checkPlan(t *testing.T, p plan, segment int) {
	t.Helper()
	// holds[rank][element] is how many members' parts are in what a rank holds; it begins with its own.
	holds := make([][]int, p.size)
	for r := range holds {
		holds[r] = make([]int, p.length)
		for e := range holds[r] {
			holds[r][e] = 1
		}
	}
	covered := make([]int, p.length)
	for i := range p.frames() {
		hop := p.hop(i)
		next := make([][]int, p.size)
		for r := range p.size {
			lo, hi := p.span(r, i)
			if lo > hi || lo < 0 || hi > p.length || hi-lo > segment {
				t.Fatalf("%+v: frame %d of rank %d is [%d, %d), more than a segment of %d or out of range",
					p, i, r, lo, hi, segment)
			}
			next[r] = append(next[r], holds[r][lo:hi]...)
			if hop == 0 {
				for e := lo; e < hi; e++ {
					covered[e]++
				}
			} else if l, h := p.span((r+p.size-1)%p.size, i-p.segments); l != lo || h != hi {
				t.Fatalf("%+v: rank %d passes on [%d, %d) in frame %d, but received [%d, %d)", p, r, lo, hi, i, l, h)
			}
		}
		for r := range p.size {
			left := (r + p.size - 1) % p.size
			lo, _ := p.span(left, i)
			for k, n := range next[left] {
				if hop < p.size-1 {
					holds[r][lo+k] += n
				} else {
					holds[r][lo+k] = n
				}
			}
		}
	}
	for e := range p.length {
		if p.size > 1 && covered[e] != 1 {
			t.Fatalf("%+v: element %d is sent first by %d ranks", p, e, covered[e])
		}
		for r := range p.size {
			if holds[r][e] != p.size {
				t.Fatalf("%+v: element %d on rank %d holds %d parts of %d", p, e, r, holds[r][e], p.size)
			}
		}
	}
}

func TestPlanSumsEverythingOnceForAll(t *testing.T) {
	for size := 2; size <= 16; size++ {
		for length := range 3*size + 2 {
			for _, segment := range []int{1, 2, 7} {
				checkPlan(t, newPlan(length, size, segment, 3*segment), segment)
			}
		}
	}
}

func FuzzPlan(f *testing.F) {
	f.Add(uint16(1000), uint8(4), uint8(16), uint8(64))
	f.Fuzz(func(t *testing.T, length uint16, size, segment, window uint8) {
		checkPlan(t, newPlan(int(length)%5000, 2+int(size)%15, 1+int(segment), int(window)), 1+int(segment))
	})
}

func TestPlanBoundsBytesInFlight(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		length, size, segment, window := rng.IntN(1<<30), 2+rng.IntN(1000), 1+rng.IntN(1<<16), rng.IntN(1<<20)
		p := newPlan(length, size, segment, window)
		// Even parts may differ by one element each.
		if most := max(window, segment) + p.segments; (length / p.rounds / size) > most {
			t.Fatalf("%+v: a chunk of a round has %d elements, expected at most about %d",
				p, length/p.rounds/size, most)
		}
	}
}

func TestPartsAreEvenAndComplete(t *testing.T) {
	for length := range 50 {
		for n := 1; n < 20; n++ {
			end := 7
			for i := range n {
				lo, hi := part(7, 7+length, i, n)
				if lo != end || hi-lo < length/n || hi-lo > length/n+1 {
					t.Fatalf("part %d of %d of %d elements is [%d, %d)", i, n, length, lo, hi)
				}
				end = hi
			}
			if end != 7+length {
				t.Fatalf("%d parts of %d elements end at %d", n, length, end)
			}
		}
	}
}
