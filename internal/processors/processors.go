// Package processors tells the kernel how to share the processors out.
//
// Processes get processors of their own: left alone, the kernel moves two busy processes about, and both ends of a loopback connection to
// the same processor. And threads that wake up wait for their turn: XLA hands the operations of a gradient call to at least four threads, and
// each that woke up threw out the one that was computing, a hundred times a call; so did the ring's, and the coordinator's.
//
// Only Linux can do it; elsewhere Available returns none and the rest does nothing.
package processors

// Share returns the i-th of n equal, disjoint shares of the processors, in order; all of them where there are fewer than n.
func Share(processors []int, n, i int) []int {
	if len(processors) < n {
		return processors
	}
	return processors[i*len(processors)/n : (i+1)*len(processors)/n]
}
