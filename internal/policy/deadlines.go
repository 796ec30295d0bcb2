package policy

import (
	"time"

	"evenweave/internal/job"
)

// Deadlines bound the parts of a generation.
//
// Connect < Fetch < Open < Step between all members of a world and under every backoff: a member that cannot reach its
// neighbour reports that before connected members accuse each other in the opening, and one that cannot fetch a state
// reports that before the members that wait for it do. So all but Step depend on the backoff, which the world record
// gives to all members, and on the size of the state alone, which is that of their job.
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

	stepMultiple    = 8 // of the median of the steps seen
	suspectMultiple = 4

	// EnoughSeen is from how many steps on their median counts.
	EnoughSeen = 3
	// MaxBackoff bounds the doublings that a world record may ask for.
	MaxBackoff = job.MaxBackoff
	longest    = time.Hour // a larger median, or time for the state, counts as this: no deadline overflows

	// slowest is how many bytes of a state are read, written, copied or hashed a second at the worst. Whole seconds
	// count, so a state below this changes no deadline.
	slowest = 256 << 20
)

const (
	// ProbeTimeout is how long a process may take to answer a probe. A hang costs Suspect + ProbeTimeout; a member that
	// is starved for that long is evicted wrongly.
	ProbeTimeout = 600 * time.Millisecond
	// CoordinatorPause is how late the coordinator's own ticks may be before its probes prove nothing.
	CoordinatorPause = 150 * time.Millisecond
)

// NewDeadlines is a pure function of the median step, the number of steps seen, the world's backoff, and the bytes of
// the state. A member may have to write a state, hash it or copy it before it takes part in an exchange or a step.
func NewDeadlines(median time.Duration, seen, backoff int, size int64) Deadlines {
	d := Deadlines{Connect: connectFloor, Fetch: fetchFloor, Open: openFloor, Step: firstStep, Suspect: firstSuspect}
	if seen >= EnoughSeen {
		median = min(max(median, 0), longest)
		d.Step = max(stepFloor, stepMultiple*median)
		d.Suspect = max(suspectFloor, suspectMultiple*median)
	}
	state := min(time.Duration(max(size, 0)/slowest), longest/time.Second) * time.Second
	d.Fetch, d.Open, d.Step = d.Fetch+state, d.Open+state, d.Step+state
	for _, each := range []*time.Duration{&d.Connect, &d.Fetch, &d.Open, &d.Step, &d.Suspect} {
		*each <<= min(max(backoff, 0), MaxBackoff)
	}
	return d
}
