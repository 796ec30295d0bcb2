package schedule

import "math"

// Deal says how many micro-batches each rank computes. Ranks take contiguous ranges in rank order; the counts sum to V.
type Deal []int

// Even deals v micro-batches to n ranks, the first v mod n of which get one more: the deal that opens a generation.
func Even(v, n int) Deal {
	d := make(Deal, max(n, 0))
	for rank := range d {
		d[rank] = v / n
		if rank < v%n {
			d[rank]++
		}
	}
	return d
}

// Range returns the micro-batches lo <= v < hi that a rank computes. It is empty for a rank outside the deal.
func (d Deal) Range(rank int) (lo, hi int) {
	if rank < 0 || rank >= len(d) {
		return 0, 0
	}
	for _, count := range d[:rank] {
		lo += count
	}
	return lo, lo + d[rank]
}

// Next returns the deal of the following step, given the time that each rank computed in the last committed one, in
// nanoseconds. It is a pure integer function, so that ranks which hold the same committed buffer agree on it.
//
// A rank's cost is its time for one micro-batch. Ranks without a time (0 or less) or without micro-batches keep what
// they have; every other keeps at least one. The rest goes one by one to the rank that would be done with it first.
// The new deal is taken only if the slowest rank's predicted time falls by at least a tenth: else noise would move
// micro-batches at every step.
func Next(prev Deal, nanos []int64) Deal {
	if len(nanos) != len(prev) {
		return prev
	}
	total := 0
	for _, count := range prev {
		total += count
	}
	cost := make([]int64, len(prev)) // 0: keeps its share
	next := make(Deal, len(prev))
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
func makespan(d Deal, cost []int64) (slowest int64) {
	for rank, count := range d {
		slowest = max(slowest, int64(count)*cost[rank])
	}
	return slowest
}
