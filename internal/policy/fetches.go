package policy

import "time"

// Fetches finds a rank that reports that it fetches a state and gets no more blocks of it. The ranks of an opening wait
// for those that fetch.
type Fetches struct {
	step  int64       // of the state that was chosen
	most  []int64     // by rank: the most blocks that it has reported, + 1
	since []time.Time // by rank: when it first reported them
}

// Stalled is the first rank, beside one's own, that has had no block more for longer than a limit; -1: none.
func (f *Fetches) Stalled(x Exchange, step int64, own int, now time.Time, limit time.Duration) int {
	if f.step != step || len(f.most) != x.size() { // they begin again, with another state
		*f = Fetches{step, make([]int64, x.size()), make([]time.Time, x.size())}
	}
	stalled := -1
	for r := range x.size() {
		switch word := x.Slots[SlotWords*r+4]; {
		case word <= 0:
			f.most[r] = 0
		case word > f.most[r]:
			f.most[r], f.since[r] = word, now
		case stalled < 0 && r != own && now.Sub(f.since[r]) > limit:
			stalled = r
		}
	}
	return stalled
}
