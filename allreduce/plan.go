package allreduce

// plan says who sends which range when. It is pure: all members compute the same one from the same four numbers.
//
// A buffer is cut evenly into rounds, a round into one chunk a rank, a chunk into segments. Every member sends the same number of frames in the same order: round by round, in a round hop by hop, in a hop segment by segment.
// Frame i of a hop beyond the first passes on what frame i-segments brought: a member that sends frame i right after it has received frame i-segments from its left neighbour never has more than one chunk of a round on its way,
// so that the bytes in flight are bounded whatever the buffer's length.
type plan struct {
	length   int // elements in the buffer
	size     int // members
	rounds   int
	segments int // a chunk
}

// newPlan cuts length elements for size members into segments of at most segment elements, with at most window elements of a chunk (at least one segment) on their way at a time.
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

// hops is how often a chunk is passed on: size-1 times to be summed, size-1 times to be told.
func (p plan) hops() int { return 2 * (p.size - 1) }

// frames is how many frames each member sends, and receives.
func (p plan) frames() int { return p.rounds * p.hops() * p.segments }

// hop is the hop in its round of frame i.
func (p plan) hop(i int) int { return i / p.segments % p.hops() }

// chunk is which chunk the given rank sends in the given hop. It begins with its own; what it passes on in hop h came from the left in hop h-1.
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
