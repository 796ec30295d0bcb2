// Package allreduce sums buffers over the members of a ring.
package allreduce
