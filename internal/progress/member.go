package progress

import "time"

// MemberReport is what one member says of itself. It is no [Event]: it comes for every member and up to 20 times a
// second, and it is for views of the cluster only.
type MemberReport struct {
	ID, Host, Address string
	PID               int
	Rank              int    // -1: the world does not use it
	Phase             string // what it does now: spare, connect, open, fetch, compute, reduce, update, ...
	Step              int    // committed steps of its state; -1: it has none
	Generation        uint64
	Timings           []StepTiming // of the steps that it committed since its last report, in order
	Wait              *Wait        // why its last generation ended; nil: it did not fail
	Ledger            *Ledger      // nil: not known
}

// StepTiming says how one member spent its time in one committed step.
type StepTiming struct {
	Step                          int
	Committed                     time.Time
	Compute, Wait, Reduce, Update time.Duration
	MicroBatches                  int // assigned to it
}

// Wait is an edge of the graph of waits in a collective that failed.
type Wait struct {
	For    string // the member that did not answer
	Kind   string // broken, deadline, protocol, ...
	Phase  string
	Step   int
	Waited time.Duration
}

// Ledger says how many samples of the present epoch are used.
type Ledger struct {
	Epoch   int   `json:"epoch"` // counted from 1
	Used    int64 `json:"used"`
	Samples int64 `json:"samples"`
}

// MemberObserver receives the reports of all members. It must be safe for concurrent use and must not block.
type MemberObserver interface {
	ObserveMember(time.Time, MemberReport)
}
