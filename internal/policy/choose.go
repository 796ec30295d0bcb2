package policy

import "slices"

// Fingerprint is a state's hash, as package state computes it.
type Fingerprint struct{ Hi, Lo int64 }

// Exchange is what all ranks told when a generation opens, and what the records say about it.
type Exchange struct {
	// Slots holds SlotWords words a rank: its step + 1 (0: it has no state), its fingerprint, and the newest step that it was told to be durable.
	Slots       []int64
	DurableStep int64  // the newest durable step, as the world record names it
	Total       int64  // the schedule's length
	Fresh       []bool // by rank: it was not in the newest generation that opened (job.World.Fresh); nil: all were
}

// SlotWords is how many words a rank tells.
const SlotWords = 4

// Choice is what an exchange settles: from which state a generation goes on.
type Choice struct {
	Agreed  bool // all ranks have it already
	Step    int64
	Print   Fingerprint // of the state; not set without holders
	Holders []int       // ranks that have it, ascending; none: load the checkpoint of that step
	Void    []int       // ranks that told of a step outside the schedule: they count as having no state
}

// Has says whether the rank has the state.
func (c Choice) Has(rank int) bool { return slices.Contains(c.Holders, rank) }

// Source is the holder that a rank fetches the state from: another one in each generation, as this rank may be unable to reach one of them.
func (c Choice) Source(rank int, generation int64) int {
	return c.Holders[(uint64(rank)+uint64(generation))%uint64(len(c.Holders))]
}

// held is a state and the voters that have it.
type held struct {
	step   int64
	print  Fingerprint
	voters int
}

// Choose is a pure function of what all ranks told, so every rank settles alike, and no single one is believed where others can contradict it.
//
//   - Voters are the ranks with a state; fresh ones only where no other rank has a state, and then most of the world must have the same.
//   - The state of most voters wins. It needs two of them, unless there are no more than two voters.
//   - Of two states with equally many the higher wins if it is one step above: rings break between two ranks' commits.
//   - Otherwise, and where the winner is older than what is durable, all load the checkpoint of the durable step.
//   - Durable is what the world record says, and newer if at least half of the voters say so.
func Choose(x Exchange) Choice {
	var c Choice
	voters := x.voters(&c)
	floor := x.durable(voters)
	var states []held
	for _, r := range voters {
		step, print := x.at(r)
		if i := slices.IndexFunc(states, func(h held) bool { return h.step == step && h.print == print }); i >= 0 {
			states[i].voters++
		} else {
			states = append(states, held{step, print, 1})
		}
	}
	slices.SortFunc(states, func(a, b held) int {
		return 2*compare(int64(b.voters), int64(a.voters)) + compare(b.step, a.step)
	})
	c.Step = floor
	trusted := slices.ContainsFunc(voters, func(r int) bool { return !x.fresh(r) })
	switch {
	case !trusted && len(states) > 0 && 2*states[0].voters <= x.size():
		return c
	case len(states) == 0 || states[0].step < floor:
		return c
	case states[0].voters < 2 && len(voters) > 2: // each has another: at most one of them is right
		return c
	case len(states) > 1 && states[0].voters == states[1].voters && states[0].step != states[1].step+1:
		return c // nobody can say who is right
	case len(states) > 2 && states[0].voters == states[2].voters:
		return c
	}
	c.Step, c.Print = states[0].step, states[0].print
	for r := range x.size() {
		if step, print := x.at(r); step == c.Step && print == c.Print {
			c.Holders = append(c.Holders, r)
		}
	}
	c.Agreed = len(c.Holders) == x.size()
	return c
}

func (x Exchange) size() int { return len(x.Slots) / SlotWords }

func (x Exchange) fresh(r int) bool { return r < len(x.Fresh) && x.Fresh[r] }

// at returns a rank's state; step -1: it has none.
func (x Exchange) at(r int) (step int64, print Fingerprint) {
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
		case step >= 0:
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

// durable is the newest step that half of the voters, or the record, say to be durable.
func (x Exchange) durable(voters []int) int64 {
	var told []int64
	for _, r := range voters {
		if d := x.Slots[SlotWords*r+3]; d >= 0 && d <= x.Total {
			told = append(told, d)
		} else {
			told = append(told, 0)
		}
	}
	slices.Sort(told)
	if n := len(told); n > 0 {
		return max(x.DurableStep, told[n/2])
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
