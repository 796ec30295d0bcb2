// Package worker trains: it computes its share of each step's micro-batches, sums the gradients with its peers and
// applies the update.
//
//	serve.go       a whole member: etcd, servers, registration, loop
//	loop.go        choice of a world, and leaving
//	generation.go  one world: connect, agree on the state, step until something ends it
//	connect.go     the ring of a world; the accusation after a failure
//	deadlines.go   how long a collective may take; pauses of this process
//	step.go        one step: compute, all-reduce, check, update
//	buffer.go      the content of a step's one collective
//	catchup.go     a spare gets the state, and the steps since, before a world uses it
//	spare.go       when it does that, and what the loop makes of what arrives
//	repeat.go      the steps, repeated; what its state counts for until others have the same
//	updates.go     the other side: a copy of the state, and the steps since
//	logreader.go   what of that one spare is sent
//	room.go        memory for these, made before they need it
//	state.go       the live state, and the readers of states
//	snapshots.go   the due states, kept until they are durable
//	report.go      the member's status for the coordinator
//	server.go      the Member service
//	health.go      the pages that probes ask
//	fault.go       fault injection
//
// A step is a transaction: the state changes only after the all-reduce returned nil and every check on its buffer
// passed. A failed collective ends the generation, never the process.
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

// Observer observes a member. The member's loop calls its methods, which must not block.
type Observer interface {
	// Entered: the member trains in this world now, at that rank.
	Entered(w job.World, rank int)
	// Rested: it does not train, for this reason.
	Rested(phase string)
	// Committed: a step is committed. sent is the bytes of sums that this rank sent for it.
	Committed(c *proto.Commit, sent int)
	// Broken: a collective failed; kind is that of the accusation.
	Broken(kind string)
	// Healed: the state differed from the majority's and was replaced.
	Healed()
	// Repeated: a step is computed again, because gradients have outgrown their exponents.
	Repeated()
	// Saw counts etcd's unusable records, and members of another protocol. Any goroutine may call it.
	Saw(skipped, otherProtocol int)
	// Panicked: a call of another process to this member panicked. Any goroutine may call it, at any time.
	Panicked()
}
