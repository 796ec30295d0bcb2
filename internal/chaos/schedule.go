package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a sort of fault.
type Kind string

// The faults.
const (
	Kill        Kind = "kill"        // SIGKILL to one to all workers of the world
	Stop        Kind = "stop"        // SIGSTOP to a worker, SIGCONT later: its sockets stay open
	Slow        Kind = "slow"        // a worker gets a quarter of its time
	Partition   Kind = "partition"   // links of a worker carry nothing for a while
	Etcd        Kind = "etcd"        // etcd is stopped for a while, or killed and restarted on its data
	Coordinator Kind = "coordinator" // killed, or stopped for a while
	Join        Kind = "join"        // `evenweave scale` to one more
	Leave       Kind = "leave"       // SIGTERM to a worker
	Flip        Kind = "flip"        // a bit of a worker's parameters or moments
)

// Kinds returns all faults.
func Kinds() []Kind {
	return []Kind{Kill, Stop, Slow, Partition, Etcd, Coordinator, Join, Leave, Flip}
}

// ParseKinds reads a list separated by commas.
func ParseKinds(list string) ([]Kind, error) {
	var out []Kind
	for name := range strings.SplitSeq(list, ",") {
		k := Kind(strings.TrimSpace(name))
		if !slices.Contains(Kinds(), k) {
			return nil, fmt.Errorf("fault %q: must be among %v", name, Kinds())
		}
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out, nil
}

// The ways of a fault.
const (
	WayIn    = "in"    // partition: nothing from the other workers reaches it
	WayOut   = "out"   // nothing from it reaches them
	WayBoth  = "both"  // both
	WayPair  = "pair"  // nothing between it and its right neighbour
	WayAlone = "alone" // nothing between it and all others, etcd and the coordinator too
	WayEtcd  = "etcd"  // nothing between it and etcd
	WayStop  = "stop"  // etcd, coordinator: SIGSTOP, and SIGCONT later
	WayKill  = "kill"  // SIGKILL; the supervisor starts it again
)

// Fault is one entry of the schedule.
type Fault struct {
	Step  int64         // injected when this many steps are committed,
	After time.Duration // and this much later
	Kind  Kind
	Way   string        // see above; "" where there is only one
	Ranks []int         // the targets, modulo the size of the world
	For   time.Duration // how long it lasts; 0: an instant
}

// String returns the fault in one line.
func (f Fault) String() string {
	s := fmt.Sprintf("step %4d +%-6v %-11s", f.Step, f.After, f.Kind)
	if f.Way != "" {
		s += " " + f.Way
	}
	if len(f.Ranks) > 0 {
		s += fmt.Sprintf(" rank %s", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(f.Ranks)), ", "), "[]"))
	}
	if f.For > 0 {
		s += fmt.Sprintf(" for %v", f.For)
	}
	return s
}

// Plan determines a schedule: the same plan gives the same schedule.
type Plan struct {
	Seed            uint64
	Workers         int   // of the world, at the start
	Steps           int64 // of the job
	Kinds           []Kind
	Count           int   // faults; 0: one for every 20 steps, and at least one of each kind
	CheckpointEvery int64 // steps between due checkpoints; 0: none
	Single          bool  // kill one worker at a time
}

func (p Plan) has(k Kind) bool { return slices.Contains(p.Kinds, k) }

// Schedule spreads the kinds evenly over the steps, including the first and the last.
func (p Plan) Schedule() []Fault {
	r := rand.New(rand.NewPCG(p.Seed, 0x6368616f73)) // "chaos"
	n := p.Count
	if n == 0 {
		n = max(len(p.Kinds), int(p.Steps/20))
	}
	if len(p.Kinds) == 0 || p.Steps < 1 {
		return nil
	}
	var kinds []Kind
	for len(kinds) < n {
		round := slices.Clone(p.Kinds)
		r.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		kinds = append(kinds, round...)
	}
	faults := make([]Fault, 0, n)
	for _, k := range kinds[:n] {
		faults = append(faults, p.fault(r, k))
	}
	switch r.IntN(4) { // the moments that are easy to forget
	case 0:
		faults[0].Step = 0
	case 1:
		faults[0].Step = p.Steps - 1
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return int(a.Step - b.Step) })
	return faults
}

func (p Plan) fault(r *rand.Rand, k Kind) Fault {
	between := func(least, most time.Duration) time.Duration {
		return (least + time.Duration(r.Int64N(int64(most-least)+1))).Round(time.Millisecond)
	}
	f := Fault{Step: r.Int64N(p.Steps), After: between(0, 100*time.Millisecond), Kind: k}
	one := []int{r.IntN(p.Workers)}
	switch k {
	case Kill:
		f.Ranks = r.Perm(p.Workers)[:1]
		if p.Workers > 1 && !p.Single && r.IntN(3) == 0 { // several at once, sometimes all
			f.Ranks = r.Perm(p.Workers)[:2+r.IntN(p.Workers-1)]
		}
		slices.Sort(f.Ranks)
	case Stop:
		f.Ranks, f.For = one, between(300*time.Millisecond, 9*time.Second)
	case Slow:
		f.Ranks, f.For = one, between(2*time.Second, 5*time.Second)
	case Partition:
		ways := []string{WayIn, WayOut, WayBoth, WayPair, WayAlone, WayEtcd}
		f.Ranks, f.For, f.Way = one, between(time.Second, 9*time.Second), ways[r.IntN(len(ways))]
	case Etcd:
		if f.Way = WayKill; r.IntN(3) > 0 {
			f.Way, f.For = WayStop, between(time.Second, 10*time.Second)
		}
	case Coordinator:
		if f.Way = WayKill; r.IntN(4) == 0 {
			f.Way, f.For = WayStop, between(time.Second, 9*time.Second)
		}
		if e := p.CheckpointEvery; e > 0 && e < p.Steps && r.IntN(2) == 0 { // in a checkpoint or evaluation
			f.Step, f.After = e*(1+r.Int64N((p.Steps-1)/e)), between(0, 30*time.Millisecond)
		}
	case Leave, Flip:
		f.Ranks = one
	}
	return f
}
