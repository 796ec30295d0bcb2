// Package affinity gives processes processors of their own. Left alone, the kernel moves two busy processes about, and both ends of a loopback
// connection to the same processor; two workers on two processors computed a tenth faster when each kept its own.
//
// Only Linux can do it; elsewhere Available returns none and the rest does nothing.
package affinity

// Share returns the i-th of n equal, disjoint shares of the processors, in order; all of them where there are fewer than n.
func Share(processors []int, n, i int) []int {
	if len(processors) < n {
		return processors
	}
	return processors[i*len(processors)/n : (i+1)*len(processors)/n]
}
