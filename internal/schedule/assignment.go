package schedule

import "math"

// Assignment is how many micro-batches each rank computes. Ranks take contiguous ranges in rank order; the counts sum
// to V.
type Assignment []int

// Even divides v micro-batches among n ranks; the first v mod n ranks get one more. A generation begins with it.
func Even(v, n int) Assignment {
	d := make(Assignment, max(n, 0))
	for rank := range d {
		d[rank] = v / n
		if rank < v%n {
			d[rank]++
		}
	}
	return d
}

// Range returns the micro-batches lo <= v < hi that a rank computes. It is empty for an unknown rank.
func (d Assignment) Range(rank int) (lo, hi int) {
	if rank < 0 || rank >= len(d) {
		return 0, 0
	}
	for _, count := range d[:rank] {
		lo += count
	}
	return lo, lo + d[rank]
}

// Next returns the assignment of the next step. nanos is the time that each rank computed in the last committed step,
// in nanoseconds. It is a pure integer function: ranks that hold the same committed buffer agree on it.
//
// A rank's cost is its time for one micro-batch. Ranks without a time (0 or less) or without micro-batches keep their
// share; every other keeps at least one. Each of the rest goes to the rank that would finish it first. Next returns
// prev unless the slowest rank's predicted time falls by at least a tenth: otherwise noise would move micro-batches at
// every step.
func Next(prev Assignment, nanos []int64) Assignment {
	if len(nanos) != len(prev) {
		return prev
	}
	total := 0
	for _, count := range prev {
		total += count
	}
	cost := make([]int64, len(prev)) // 0: keeps its share
	next := make(Assignment, len(prev))
	free := 0
	for rank, count := range prev {
		next[rank] = count
		if count > 0 && nanos[rank] > 0 {
			// At most MaxInt64/total, so that no count times cost overflows.
			cost[rank] = min(max(nanos[rank]/int64(count), 1), math.MaxInt64/int64(total))
			next[rank] = 1
			free += count - 1
		}
	}
	for ; free > 0; free-- {
		best := -1
		var bestTime int64
		for rank, c := range cost {
			if t := int64(next[rank]+1) * c; c > 0 && (best < 0 || t < bestTime) {
				best, bestTime = rank, t
			}
		}
		next[best]++
	}
	before := makespan(prev, cost)
	if gain := before - makespan(next, cost); gain <= 0 || gain < before/10 {
		return prev
	}
	return next
}

// makespan predicts the time of the slowest rank.
func makespan(d Assignment, cost []int64) (slowest int64) {
	for rank, count := range d {
		slowest = max(slowest, int64(count)*cost[rank])
	}
	return slowest
}
