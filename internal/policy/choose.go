package policy

import "slices"

// Fingerprint is a state's hash, as package state computes it.
type Fingerprint struct{ Hi, Lo int64 }

// Exchange is what all ranks report when a generation opens, with the world record's part.
type Exchange struct {
	// Slots holds SlotWords words for each rank: its step + 1 (0: it has no state), its fingerprint, the newest step
	// that it knows to be durable, and while it fetches a state 1 + the number of blocks that have arrived; Unproved
	// there says that it has its state by the word of one member, and no vote. Then the fingerprint of the state that
	// it has computed its own from, zeros if it has not.
	Slots       []int64
	DurableStep int64  // the newest durable step in the world record
	Total       int64  // the schedule's length
	Fresh       []bool // by rank: not known to have the newest state (job.World.Fresh); nil: none is
}

const (
	SlotWords = 7  // of a rank
	Unproved  = -1 // in the fifth of them
)

// Choice is the result of an exchange: the state that a generation goes on from.
type Choice struct {
	Agreed      bool // all ranks have it already
	Step        int64
	Fingerprint Fingerprint // of the state; not set without holders
	Holders     []int       // ranks that have it, ascending; none: load the checkpoint of that step
	Void        []int       // ranks that reported a step outside the schedule: they count as having no state
}

// Has reports whether the rank has the state.
func (c Choice) Has(rank int) bool { return slices.Contains(c.Holders, rank) }

// Source is the holder that a rank fetches the state from: another one in each generation, because the rank may be
// unable to reach one of them.
func (c Choice) Source(rank int, generation int64) int {
	return c.Holders[(uint64(rank)+uint64(generation))%uint64(len(c.Holders))]
}

// held is a state and the voters that have it.
type held struct {
	step        int64
	fingerprint Fingerprint
	voters      int
}

// Choose is a pure function of the exchange, so every rank chooses the same. No single rank decides what others can
// contradict.
//
//   - Voters are the ranks with a state that is not unproved. Fresh ones vote only if no other rank has a state, and
//     then most of the world must have the same.
//   - The state of most voters wins. It needs two of them, unless there are no more than two voters.
//   - Of two states with equally many voters the higher wins if it is one step above: rings break between two ranks'
//     commits.
//   - If there are only two voters, the lower of these wins, and the step is done again: either the other has computed
//     its state from it, or a fresh rank has it, too. One of the two may say anything of a higher step.
//   - Otherwise, or if the winner is older than the durable step, all load the checkpoint of the durable step.
//   - The durable step is the world record's, or a newer one that most of the voters report, or one of a world of two.
func Choose(x Exchange) Choice {
	var c Choice
	voters := x.voters(&c)
	durableStep := x.durable(voters)
	var states []held
	for _, r := range voters {
		step, fingerprint := x.at(r)
		if i := slices.IndexFunc(states, func(h held) bool {
			return h.step == step &&
				h.fingerprint == fingerprint
		}); i >= 0 {
			states[i].voters++
		} else {
			states = append(states, held{step, fingerprint, 1})
		}
	}
	slices.SortFunc(states, func(a, b held) int {
		return 2*compare(int64(b.voters), int64(a.voters)) + compare(b.step, a.step)
	})
	c.Step = durableStep
	trusted := slices.ContainsFunc(voters, func(r int) bool { return !x.fresh(r) })
	switch {
	case !trusted && len(states) > 0 && 2*states[0].voters <= x.size():
		return c
	case len(states) == 0 || states[0].step < durableStep:
		return c
	case states[0].voters < 2 && len(voters) > 2: // all states differ: at most one of them is right
		return c
	case len(states) > 1 && states[0].voters == states[1].voters && states[0].step != states[1].step+1:
		return c // the right one is unknown
	case len(states) > 2 && states[0].voters == states[2].voters:
		return c
	}
	won := states[0]
	if len(voters) == 2 && len(states) == 2 {
		if won = states[1]; won.step < durableStep || !x.vouched(won, states[0]) {
			return c
		}
	}
	c.Step, c.Fingerprint = won.step, won.fingerprint
	for r := range x.size() {
		if step, fingerprint := x.at(r); step == c.Step && fingerprint == c.Fingerprint {
			c.Holders = append(c.Holders, r)
		}
	}
	c.Agreed = len(c.Holders) == x.size()
	return c
}

// vouched reports whether a rank beside its voter has a state, or has computed the state above from it.
func (x Exchange) vouched(lower, upper held) bool {
	ranks, none := 0, Fingerprint{}
	for r := range x.size() {
		step, fingerprint := x.at(r)
		s := x.Slots[SlotWords*r:]
		from := Fingerprint{Hi: s[5], Lo: s[6]}
		if s[4] == Unproved { // that is the word of another one
			continue
		}
		if step == lower.step && fingerprint == lower.fingerprint ||
			step == upper.step && fingerprint == upper.fingerprint && from == lower.fingerprint && from != none {
			ranks++
		}
	}
	return ranks > 1
}

// Fetching reports whether a rank is fetching the state that an earlier exchange chose.
func (x Exchange) Fetching() bool {
	for r := range x.size() {
		if x.Slots[SlotWords*r+4] > 0 {
			return true
		}
	}
	return false
}

func (x Exchange) size() int { return len(x.Slots) / SlotWords }

func (x Exchange) fresh(r int) bool { return r < len(x.Fresh) && x.Fresh[r] }

// at returns a rank's state; step -1: it has none.
func (x Exchange) at(r int) (step int64, fingerprint Fingerprint) {
	s := x.Slots[SlotWords*r:]
	if s[0] < 1 || s[0]-1 > x.Total {
		return -1, Fingerprint{}
	}
	return s[0] - 1, Fingerprint{Hi: s[1], Lo: s[2]}
}

// voters are the ranks whose states count.
func (x Exchange) voters(c *Choice) []int {
	var all, old []int
	for r := range x.size() {
		switch step, _ := x.at(r); {
		case step < 0 && x.Slots[SlotWords*r] != 0:
			c.Void = append(c.Void, r)
		case step >= 0 && x.Slots[SlotWords*r+4] != Unproved:
			all = append(all, r)
			if !x.fresh(r) {
				old = append(old, r)
			}
		}
	}
	if len(old) > 0 {
		return old
	}
	return all
}

// durable is the newest step that most of the voters report as durable, or one of a world of two, or the record.
func (x Exchange) durable(voters []int) int64 {
	var report []int64
	for _, r := range voters {
		if d := x.Slots[SlotWords*r+3]; d >= 0 && d <= x.Total {
			report = append(report, d)
		} else {
			report = append(report, 0)
		}
	}
	slices.Sort(report)
	if n := len(report); n > 0 && x.size() > 2 {
		return max(x.DurableStep, report[(n-1)/2])
	} else if n > 0 {
		return max(x.DurableStep, report[n-1])
	}
	return x.DurableStep
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
