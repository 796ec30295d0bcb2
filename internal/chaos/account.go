package chaos

import (
	"math"
	"slices"
	"time"
)

// Mark is a moment of a run.
type Mark struct {
	Time       time.Time
	Generation int64
	Step       int64
	Reason     string // in words
}

// Timeline is what the watcher saw of a run, each list by time.
type Timeline struct {
	Commits     []Mark // the first report of each step in each generation
	Worlds      []Mark // published
	Accusations []Mark // a member's collective failed
	Opened      []Mark // a member agreed with its world on the state
	Heals       []Mark // a state was repaired
	Injections  []Injection
}

// Recovery is how a world was replaced after a fault, in times since the fault.
type Recovery struct {
	Injection
	Detect time.Duration // until the first member reported it; 0: none did
	World  time.Duration // until the next world was published
	State  time.Duration // until a member had agreed with it on the state
	Commit time.Duration // until its first commit
}

// Account is what the faults cost.
type Account struct {
	Recoveries []Recovery // of faults that ended a generation
	Wall       time.Duration
	Useful     time.Duration          // Wall minus Lost
	Lost       map[Kind]time.Duration // time between commits beyond the median, by the last fault; "": before any
	Step       time.Duration          // median time between commits
	Steps      int
	Redone     int // commits of a step that an earlier generation had committed
	Heals      []Mark
}

// Goodput is the share of the wall time, from the first commit to the last, that went into steps.
func (a Account) Goodput() float64 {
	if a.Wall <= 0 {
		return 0
	}
	return float64(a.Useful) / float64(a.Wall)
}

// Account computes the costs from the timeline.
func (t Timeline) Account() Account {
	a := Account{Lost: map[Kind]time.Duration{}, Steps: len(t.Commits), Heals: t.Heals}
	for i, in := range t.Injections {
		until := time.Time{} // the time of the next fault
		if i+1 < len(t.Injections) {
			until = t.Injections[i+1].Time
		}
		if r, ok := t.recovery(in, until); ok && in.Skipped == "" {
			a.Recoveries = append(a.Recoveries, r)
		}
	}
	if len(t.Commits) < 2 {
		return a
	}
	gaps := make([]time.Duration, 0, len(t.Commits))
	seen := map[int64]bool{t.Commits[0].Step: true}
	for i, c := range t.Commits[1:] {
		gaps = append(gaps, c.Time.Sub(t.Commits[i].Time))
		if seen[c.Step] {
			a.Redone++
		}
		seen[c.Step] = true
	}
	a.Wall = t.Commits[len(t.Commits)-1].Time.Sub(t.Commits[0].Time)
	a.Step = percentile(gaps, 50)
	a.Useful = a.Wall
	for i, gap := range gaps {
		if over := gap - a.Step; over > 0 {
			a.Lost[t.cause(t.Commits[i+1].Time)] += over
			a.Useful -= over
		}
	}
	return a
}

// recovery looks for the first commit of a newer generation after the fault.
func (t Timeline) recovery(in Injection, until time.Time) (Recovery, bool) {
	since := func(marks []Mark, generation int64) time.Duration {
		for _, m := range marks {
			if m.Generation >= generation && m.Time.After(in.Time) {
				return m.Time.Sub(in.Time)
			}
		}
		return 0
	}
	r := Recovery{Injection: in, World: since(t.Worlds, in.Generation+1), Commit: since(t.Commits, in.Generation+1)}
	if r.Commit == 0 || r.World == 0 || !until.IsZero() && in.Time.Add(r.World).After(until) {
		return r, false
	}
	if r.Detect = since(t.Accusations, in.Generation); r.Detect > r.Commit {
		r.Detect = 0
	}
	r.State = since(t.Opened, in.Generation+1)
	return r, true
}

// cause is the last fault before a moment.
func (t Timeline) cause(at time.Time) Kind {
	k := Kind("")
	for _, in := range t.Injections {
		if in.Time.After(at) {
			break
		}
		if in.Skipped == "" {
			k = in.Kind
		}
	}
	return k
}

// percentile returns the p-th percentile by rank; 0 if there are no times.
func percentile(times []time.Duration, p float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}
