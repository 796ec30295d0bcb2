// Package processors controls on which processors processes and threads run, and says how much of them this one used.
//
// Each process gets processors of its own: otherwise the kernel moves busy processes between processors, and both ends
// of a loopback connection to the same one. And a thread that wakes up waits for its turn (Batch): XLA hands the
// operations of a gradient call to at least four threads, and each that woke up interrupted the one that was computing,
// a hundred times a call; so did the threads of the ring and the coordinator.
//
// This works on Linux only; elsewhere Available returns none and the rest does nothing.
package processors

// Share returns the i-th of n equal, disjoint shares of the processors, in order; all processors if there are fewer
// than n.
func Share(processors []int, n, i int) []int {
	if len(processors) < n {
		return processors
	}
	return processors[i*len(processors)/n : (i+1)*len(processors)/n]
}
