package policy

import (
	"slices"
)

// Fingerprint is a state's hash, as package state computes it.
type Fingerprint struct{ Hi, Lo int64 }

// Choice is what an exchange of (step, fingerprint) settles: from which state a generation goes on.
type Choice struct {
	Agreed  bool // all ranks have it already
	Step    int64
	Print   Fingerprint // of the state; not set without holders
	Holders []int       // ranks that have it, ascending; none: load the checkpoint of that step
}

// Has says whether the rank has the state.
func (c Choice) Has(rank int) bool { return slices.Contains(c.Holders, rank) }

// Source is the holder that a rank fetches the state from: another one in each generation, as this rank may be unable to reach one of them.
func (c Choice) Source(rank int, generation int64) int {
	return c.Holders[(int64(rank)+generation)%int64(len(c.Holders))]
}

// SlotWords is how many words a rank tells.
const SlotWords = 4

// Choose is a pure function of what all ranks told, so every rank settles alike. slots holds four words a rank: its step + 1 (0: it has no
// state), its fingerprint, and the newest step that it knows to be durable. The highest step wins, then the majority at that step. When nobody
// has a state as new as the newest durable one, known to a rank or the floor, and when the majority is tied, all load that checkpoint.
func Choose(slots []int64, floor int64) Choice {
	highest := int64(0)
	for r := 0; r < len(slots); r += SlotWords {
		highest, floor = max(highest, slots[r]), max(floor, slots[r+3])
	}
	if highest < floor+1 {
		return Choice{Step: floor}
	}
	votes := map[Fingerprint][]int{}
	for r := 0; r < len(slots); r += SlotWords {
		if slots[r] == highest {
			f := Fingerprint{Hi: slots[r+1], Lo: slots[r+2]}
			votes[f] = append(votes[f], r/SlotWords)
		}
	}
	c, tie := Choice{Step: highest - 1}, false
	for f, ranks := range votes {
		switch {
		case len(ranks) > len(c.Holders):
			c.Print, c.Holders, tie = f, ranks, false
		case len(ranks) == len(c.Holders):
			tie = true
		}
	}
	if tie { // nobody can say who is right: everyone replays from the last verified checkpoint
		return Choice{Step: floor}
	}
	c.Agreed = SlotWords*len(c.Holders) == len(slots)
	return c
}
