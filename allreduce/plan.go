package allreduce

// plan is the order in which each rank sends which range. It is pure: all members compute the same plan from the same
// four numbers.
//
// A buffer is cut evenly into rounds, a round into one chunk a rank, a chunk into segments. Every member sends the same
// number of frames in the same order: round by round, in a round hop by hop, in a hop segment by segment. Frame i of a
// hop beyond the first passes on what frame i-segments brought. A member that sends frame i right after it has received
// frame i-segments never has more than one chunk of a round in flight: the bytes in flight are bounded, whatever the
// buffer's length.
type plan struct {
	length   int // elements in the buffer
	size     int // members
	rounds   int
	segments int // in a chunk
}

// newPlan cuts length elements for size members into segments of at most segment elements. A chunk of a round has at
// most window elements, or one segment if that is larger.
func newPlan(length, size, segment, window int) plan {
	p := plan{length: length, size: size, rounds: 1, segments: 1}
	if length > 0 {
		chunk := ceil(length, size)
		p.rounds = ceil(chunk, max(window, segment))
		p.segments = ceil(ceil(chunk, p.rounds), segment)
	}
	return p
}

func ceil(a, b int) int { return (a-1)/b + 1 }

// hops is how often a chunk is passed on: size-1 times while it is summed, size-1 times to distribute the sum.
func (p plan) hops() int { return 2 * (p.size - 1) }

// frames is how many frames each member sends, and how many it receives.
func (p plan) frames() int { return p.rounds * p.hops() * p.segments }

// hop is the hop in its round of frame i.
func (p plan) hop(i int) int { return i / p.segments % p.hops() }

// chunk is the chunk that the given rank sends in the given hop. A rank begins with its own chunk; in hop h it passes
// on what came from the left in hop h-1.
func (p plan) chunk(rank, hop int) int { return ((rank-hop)%p.size + p.size) % p.size }

// span is the elements [lo, hi) that the given rank sends in frame i.
func (p plan) span(rank, i int) (lo, hi int) {
	lo, hi = part(0, p.length, i/(p.hops()*p.segments), p.rounds)
	lo, hi = part(lo, hi, p.chunk(rank, p.hop(i)), p.size)
	return part(lo, hi, i%p.segments, p.segments)
}

// part is the i-th of n even parts of [lo, hi).
func part(lo, hi, i, n int) (int, int) { return lo + cut(hi-lo, i, n), lo + cut(hi-lo, i+1, n) }

// cut is floor(length*i/n) for 0 <= i <= n, without overflow.
func cut(length, i, n int) int { return length/n*i + length%n*i/n }
