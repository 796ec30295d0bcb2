// Package worker trains: it computes its share of each step's micro-batches, sums the gradients with its peers and applies the update.
//
//	run.go         a whole member: etcd, servers, registration, loop
//	loop.go        which world to train in, when to go
//	generation.go  one world: connect, agree on the state, step until something ends it
//	connect.go     the ring of a world; whom its failure accuses
//	patience.go    how long a collective may take
//	step.go        one step: compute, all-reduce, check, update
//	buffer.go      what the one collective of a step carries
//	state.go       the live state and the due snapshots, and who may read them
//	report.go      what the coordinator is told
//	server.go      the Member service
//	health.go      the pages that probes ask
//	fault.go       what fault injection does to a member
//
// A step is a transaction: the state changes only after the all-reduce returned nil and every check on its buffer passed.
// A failed collective ends the generation, never the process.
package worker

import (
	"context"

	"evenweave/internal/job"
	"evenweave/proto"
)

// Collective sums buffers over the ranks of one generation. Called by one goroutine, except Abort.
type Collective interface {
	// Sum adds up buf over all ranks, in place. After an error every later call fails.
	Sum(ctx context.Context, step int64, buf []int64) error
	// Abort breaks the collective on all ranks at once.
	Abort(cause error)
	// Close returns once the neighbour has acknowledged everything that was sent to it.
	Close(ctx context.Context) error
}

// Connect joins the collective of a world at the given rank.
type Connect func(ctx context.Context, w job.World, rank int) (Collective, error)

// Observer is told what a member does. Its methods are called by the member's loop and must not block.
type Observer interface {
	// Entered: the member trains in this world now, at that rank.
	Entered(w job.World, rank int)
	// Rested: it does not train; why.
	Rested(phase string)
	// Committed: a step is in. sent is how many bytes of sums this rank gave to its neighbour for it.
	Committed(c *proto.Commit, sent int)
	// Broken: a collective failed; kind is that of the accusation.
	Broken(kind string)
	// Healed: the state differed from the majority's and was replaced.
	Healed()
	// Saw: so many of etcd's records cannot be used, and so many members speak another protocol. It may come from any goroutine.
	Saw(skipped, otherProtocol int)
	// Panicked: a call of another process to this member panicked. It may come at any time, from any goroutine.
	Panicked()
}
