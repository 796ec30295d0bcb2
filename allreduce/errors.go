package allreduce

import (
	"errors"
	"fmt"
	"time"
)

// Kind sorts the failures of a ring by what the operator or the coordinator should look at next.
type Kind int

// The kinds of failure.
const (
	// Broken says that a neighbour's stream ended: its process died, its host went away, or it left.
	Broken Kind = iota + 1
	// Deadline says that a neighbour was silent for too long, though its stream stands.
	Deadline
	// Protocol says that a neighbour sent what does not belong here: damaged bytes, another job, generation, step or
	// shape.
	Protocol
	// Relayed says that a neighbour gave up because of another member, and sent the reason.
	Relayed
	// Aborted says that this member itself broke the ring or misused it.
	Aborted
)

// String returns the kind in words.
func (k Kind) String() string {
	switch k {
	case Broken:
		return "broken stream"
	case Deadline:
		return "deadline"
	case Protocol:
		return "protocol violation"
	case Relayed:
		return "relayed failure"
	case Aborted:
		return "aborted"
	}
	return "unknown kind"
}

func (k Kind) hint() string {
	switch k {
	case Broken:
		return "see whether that process is alive and what it logged last"
	case Deadline:
		return "that process or the network to it is stuck: probe it; if it is only slow, allow more time"
	case Protocol:
		return "compare both members' versions and world records; damaged bytes point to memory or network hardware"
	case Relayed:
		return "the neighbour is well: look at the member that it names"
	}
	return "see the cause"
}

// Edge is one wait in the ring: which rank waits for which peer, and where in which collective.
type Edge struct {
	Op         string // "send", "receive", "idle" when no Sum runs; "connect", "accept" before the ring is whole
	Phase      string // "reduce-scatter", "all-gather", or "" outside a Sum
	Rank       int    // the rank that waits
	Peer       int    // the rank that it waits for: left for a receive, right for a send; -1: none
	PeerID     string // the peer's member id
	Generation int64
	Step       int64         // as given to Sum
	Chunk      int           // the chunk that is waited for
	Segment    int           // its segment, counted over all rounds
	Waited     time.Duration // since the wait began
}

// String returns the edge in one line.
func (e Edge) String() string {
	if e.Op == "idle" {
		return fmt.Sprintf("generation %d: rank %d is idle after step %d", e.Generation, e.Rank, e.Step)
	}
	where := fmt.Sprintf("step %d %s chunk %d segment %d", e.Step, e.Phase, e.Chunk, e.Segment)
	if e.Phase == "" {
		where = "outside a sum"
	}
	return fmt.Sprintf("generation %d: rank %d, %s with rank %d (%s), %s, after %v", e.Generation, e.Rank, e.Op, e.Peer,
		e.PeerID, where, e.Waited.Round(time.Microsecond))
}

// Error is why a ring is poisoned. The embedded Edge is the wait during which the failure happened; its Peer is the
// member to blame.
type Error struct {
	Kind Kind
	Edge
	Err error // the cause
}

// Error returns what failed, where, why, and what to do next.
func (e *Error) Error() string {
	return fmt.Sprintf("allreduce: %v: %v: %v (%s)", e.Kind, e.Edge, e.Err, e.Kind.hint())
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// protocolError marks a violation of the protocol by the sender.
type protocolError struct{ error }

func violation(format string, args ...any) error { return protocolError{fmt.Errorf(format, args...)} }

// kindOf sorts an error that a link or the decoder returned.
func kindOf(err error) Kind {
	var peer *PeerAbort
	switch {
	case errors.As(err, &protocolError{}):
		return Protocol
	case errors.As(err, &peer):
		return Relayed
	}
	return Broken
}
