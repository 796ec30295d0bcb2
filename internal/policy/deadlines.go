package policy

import (
	"time"

	"evenweave/internal/job"
)

// Deadlines bound the parts of a generation.
//
// Connect < Fetch < Open < Step between all members of a world and under every backoff: a member that cannot reach its
// neighbour reports that before connected members accuse each other in the opening, and one that cannot fetch a state
// reports that before the members that wait for it do. So all but Step depend on the backoff alone, which the world
// record gives to all members.
type Deadlines struct {
	Connect time.Duration // until both neighbours' streams are open
	Fetch   time.Duration // a state from a peer, or a checkpoint
	Open    time.Duration // an exchange of states, while peers may be fetching theirs
	Step    time.Duration // a step's collective: then the generation is over
	Suspect time.Duration // a collective, before this member asks the coordinator to probe the others
}

const (
	connectFloor = 3 * time.Second
	fetchFloor   = 4 * time.Second
	openFloor    = 5 * time.Second
	stepFloor    = 6 * time.Second
	suspectFloor = 300 * time.Millisecond
	firstStep    = 15 * time.Second // before enough steps were seen
	firstSuspect = 3 * time.Second
	enoughSeen   = 3

	stepMultiple    = 8 // of the median of the steps seen
	suspectMultiple = 4

	// MaxBackoff bounds the doublings that a world record may ask for.
	MaxBackoff  = job.MaxBackoff
	longestStep = time.Hour // a larger median counts as this: no deadline overflows
)

const (
	// ProbeTimeout is how long a process may take to answer a probe. A hang costs Suspect + ProbeTimeout; a member that
	// is starved for that long is evicted wrongly.
	ProbeTimeout = 600 * time.Millisecond
	// CoordinatorPause is how late the coordinator's own ticks may be before its probes prove nothing.
	CoordinatorPause = 150 * time.Millisecond
)

// NewDeadlines is a pure function of the median step, the number of steps seen, and the world's backoff.
func NewDeadlines(median time.Duration, seen, backoff int) Deadlines {
	d := Deadlines{Connect: connectFloor, Fetch: fetchFloor, Open: openFloor, Step: firstStep, Suspect: firstSuspect}
	if seen >= enoughSeen {
		median = min(max(median, 0), longestStep)
		d.Step = max(stepFloor, stepMultiple*median)
		d.Suspect = max(suspectFloor, suspectMultiple*median)
	}
	for _, each := range []*time.Duration{&d.Connect, &d.Fetch, &d.Open, &d.Step, &d.Suspect} {
		*each <<= min(max(backoff, 0), MaxBackoff)
	}
	return d
}
