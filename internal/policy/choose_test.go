package policy

import (
	"math"
	"slices"
	"testing"
)

// claim is one rank's report: a step (-1: no state), which state of it, a durable step.
type claim struct{ step, fingerprint, durable int64 }

func exchange(durableStep int64, ranks ...claim) Exchange {
	x := Exchange{DurableStep: durableStep, Total: 100}
	for _, r := range ranks {
		x.Slots = append(x.Slots, r.step+1, r.fingerprint, 0, r.durable, 0, 0, 0)
	}
	return x
}

// TestChoose shows the rule by examples.
func TestChoose(t *testing.T) {
	none := claim{step: -1}
	for name, c := range map[string]struct {
		x       Exchange
		step    int64
		holders []int // nil: the checkpoint of that step
	}{
		"all agree":                             {exchange(5, claim{9, 1, 0}, claim{9, 1, 0}), 9, []int{0, 1}},
		"no rank has a state":                   {exchange(5, none, none), 5, nil},
		"one alone is trusted":                  {exchange(5, claim{9, 1, 0}), 9, []int{0}},
		"and gives its state to fresh ones":     {exchange(5, none, claim{9, 1, 0}, none), 9, []int{1}},
		"but not one older than the checkpoint": {exchange(10, claim{9, 1, 0}), 10, nil},
		"of two the one that the other comes from": {from(exchange(5, claim{9, 2, 0}, claim{8, 1, 0}), 1), 8,
			[]int{1}},
		"not one that the other does not": {exchange(5, claim{8, 1, 0}, claim{9, 2, 0}), 5, nil},
		"not the one two steps ahead":     {exchange(5, claim{7, 1, 0}, claim{9, 2, 0}), 5, nil},
		"two differ at a step":            {exchange(5, claim{9, 1, 0}, claim{9, 2, 0}), 5, nil},
		"the majority": {exchange(5, claim{9, 2, 0}, claim{9, 1, 0}, claim{9, 2, 0}),
			9, []int{0, 2}},
		"the majority against a lone higher step": {exchange(5, claim{9, 2, 0}, claim{8, 1, 0}, claim{8, 1, 0}),
			8, []int{1, 2}},
		"the majority at the higher step": {exchange(5, claim{9, 2, 0}, claim{8, 1, 0}, claim{9, 2, 0}),
			9, []int{0, 2}},
		"half have taken the step": {exchange(5, claim{9, 2, 0}, claim{8, 1, 0}, claim{9, 2, 0},
			claim{8, 1, 0}), 9, []int{0, 2}},
		"two against two at a step": {exchange(5, claim{9, 2, 0}, claim{9, 1, 0}, claim{9, 2, 0},
			claim{9, 1, 0}), 5, nil},
		"three with three states": {exchange(5, claim{10, 3, 0}, claim{9, 2, 0}, claim{8, 1, 0}),
			5, nil},
		"two beside two that differ": {exchange(5, claim{9, 2, 0}, claim{9, 2, 0}, claim{9, 3, 0},
			claim{8, 1, 0}), 9, []int{0, 1}},
		"a step beyond the schedule is void": {exchange(5, claim{101, 2, 0}, claim{8, 1, 0}), 8, []int{1}},
		"hostile words": {exchange(5, claim{math.MaxInt64 - 1, 2, math.MaxInt64},
			claim{math.MinInt64, 1, math.MinInt64}, claim{8, 1, 0}), 8, []int{2}},
		"one's durable step is not believed": {exchange(5, claim{9, 1, 50}, claim{9, 1, 5}, claim{9, 1, 0}),
			9, []int{0, 1, 2}},
		"nor one beyond the schedule": {exchange(5, claim{9, 1, math.MaxInt64},
			claim{9, 1, math.MaxInt64}), 9, []int{0, 1}},
		"two know of a newer checkpoint":   {exchange(0, claim{9, 1, 7}, claim{9, 2, 7}), 7, nil},
		"one of two knows of it":           {exchange(0, claim{9, 1, 7}, claim{9, 2, 0}), 7, nil},
		"not one of two in a larger world": {exchange(0, claim{9, 1, 7}, claim{9, 2, 0}, none), 0, nil},
		"of two in a larger world the one that the other comes from": {from(exchange(5, claim{9, 2, 0}, claim{8, 1, 0},
			none), 1), 8, []int{1}},
		"or that a fresh rank has": {with(exchange(5, claim{9, 2, 0}, claim{8, 1, 0}, claim{8, 1, 0}), false, false,
			true), 8, []int{1, 2}},
		"not one that the other does not come from": {from(exchange(5, claim{9, 2, 0}, claim{8, 1, 0}, none), 3), 5,
			nil},
		"nor one that only a spare has, which had it from there": {unproved(exchange(5, claim{9, 2, 0},
			claim{8, 1, 0}, claim{8, 1, 0}), 2), 5, nil},
		"one of three does not suffice": {exchange(0, claim{9, 1, 7}, claim{9, 2, 0}, claim{9, 3, 0}),
			0, nil},
		"returning ranks do not outvote the others": {with(exchange(0, claim{90, 1, 0}, claim{3, 2, 0}, claim{3, 2, 0}),
			false, true, true), 90, []int{0}},
		"if no other rank has a state they count": {with(exchange(0, none, claim{3, 2, 0}, claim{3, 2, 0}), false,
			true, true), 3, []int{1, 2}},
		"if most of the world has the same": {with(exchange(0, none, claim{3, 2, 0}, none), true, true,
			true), 0, nil},
		"an unproved state has no vote": {unproved(exchange(0, claim{4, 2, 0}, claim{3, 1, 0}, claim{4, 2, 0}), 0, 2),
			3, []int{1}},
		"but counts as the one that it is": {unproved(exchange(0, claim{3, 1, 0}, claim{3, 1, 0}), 1), 3, []int{0, 1}},
		"and is nothing alone":             {unproved(exchange(2, claim{3, 1, 0}, claim{3, 1, 0}), 0, 1), 2, nil},
		"nor is its durable step believed": {unproved(exchange(2, claim{3, 1, 5}, claim{3, 1, 5}, claim{3, 1, 0}),
			0, 1), 3, []int{0, 1, 2}},
	} {
		got := Choose(c.x)
		if got.Step != c.step || !slices.Equal(got.Holders, c.holders) ||
			got.Agreed != (len(got.Holders) == c.x.size()) {
			t.Errorf("%s: %+v, want step %d of %v", name, got, c.step, c.holders)
		}
	}
}

func unproved(x Exchange, ranks ...int) Exchange {
	for _, r := range ranks {
		x.Slots[SlotWords*r+4] = Unproved
	}
	return x
}

// from is the exchange with what rank 0 has computed its state from.
func from(x Exchange, before int64) Exchange { x.Slots[5] = before; return x }

func with(x Exchange, fresh ...bool) Exchange { x.Fresh = fresh; return x }

// TestChooseEverything tries all reports of up to four ranks. A minority's state never wins against a strict majority;
// with one liar among three or more, no rank adopts the liar's state; the order of ranks does not matter.
func TestChooseEverything(t *testing.T) {
	var claims []claim
	for _, step := range []int64{-1, 1, 2, 3, math.MaxInt64 - 1} {
		for _, fingerprint := range []int64{0, 1} {
			for _, durable := range []int64{0, 2, 3} {
				if step >= 0 || fingerprint == 0 {
					claims = append(claims, claim{step, fingerprint, durable})
				}
			}
		}
	}
	var ranks []claim
	var all func(n int)
	all = func(n int) {
		if len(ranks) == n {
			checkChoice(t, ranks)
			return
		}
		for _, c := range claims {
			ranks = append(ranks, c)
			all(n)
			ranks = ranks[:len(ranks)-1]
		}
	}
	for n := 1; n <= 4; n++ {
		all(n)
	}
}

func checkChoice(t *testing.T, ranks []claim) {
	x := exchange(1, ranks...)
	c := Choose(x)
	n, same := len(ranks), func(a claim) (k int) {
		for _, b := range ranks {
			if a.step == b.step && a.fingerprint == b.fingerprint {
				k++
			}
		}
		return k
	}
	if c.Step < 1 || c.Step > x.Total || len(c.Holders) > 0 && !c.Has(c.Source(n-1, math.MaxInt64)) {
		t.Fatalf("%v: %+v", ranks, c)
	}
	reversed := slices.Clone(ranks)
	slices.Reverse(reversed)
	if d := Choose(exchange(1, reversed...)); d.Step != c.Step || d.Fingerprint != c.Fingerprint ||
		len(d.Holders) != len(c.Holders) {
		t.Fatalf("%v: %+v, in the other order %+v", ranks, c, d)
	}
	for r, a := range ranks {
		if a.step < 1 || a.step > x.Total {
			if c.Has(r) {
				t.Fatalf("%v: %+v has no state", ranks, c)
			}
			continue
		}
		if 2*same(a) > n && len(c.Holders) > 0 && !c.Has(r) {
			t.Fatalf("%v: %+v, against a strict majority", ranks, c)
		}
		// The rest is honest: one state a step, at most a step apart, at least as new as what is durable. r lies.
		honest, least, most := n >= 3, int64(math.MaxInt64), int64(0)
		for q, b := range ranks {
			if q != r {
				least, most = min(least, b.step), max(most, b.step)
				honest = honest && b.step >= 1 && b.step <= x.Total && b.fingerprint == 0 && b.durable <= b.step
			}
		}
		if !honest || most > least+1 {
			continue
		}
		if len(c.Holders) == 1 && c.Has(r) {
			t.Fatalf("%v: %+v, which only rank %d has", ranks, c, r)
		}
		if len(c.Holders) == 0 && c.Step > most {
			t.Fatalf("%v: %+v, beyond all ranks but rank %d", ranks, c, r)
		}
	}
}

// TestOneLiarChoosesNoState: in a world of three or four, with an honest member at least that has a state and votes, no
// words of one liar make the world go on from a state that no honest member had, nor beyond the record's checkpoint.
func TestOneLiarChoosesNoState(t *testing.T) {
	const durable = 5
	right := func(step int64) int64 { return 10*step + 1 }
	type rank struct {
		words []int64
		fresh bool
	}
	honest := []rank{{make([]int64, SlotWords), true}}
	for _, step := range []int64{8, 9} {
		for _, before := range []int64{0, right(step - 1)} {
			for _, fresh := range []bool{false, true} {
				honest = append(honest, rank{[]int64{step + 1, right(step), 0, durable, 0, before, 0}, fresh})
			}
		}
	}
	var liars []rank
	for step := int64(7); step <= 10; step++ {
		for _, fingerprint := range []int64{right(step), 666} {
			for _, before := range []int64{0, right(7), right(8), 666} {
				for _, known := range []int64{0, 9, 100} {
					liars = append(liars, rank{[]int64{step + 1, fingerprint, 0, known, 0, before, 0}, false})
				}
			}
		}
	}
	check := func(ranks ...rank) {
		x, votes := Exchange{DurableStep: durable, Total: 100}, false
		for i, r := range ranks {
			x.Slots, x.Fresh = append(x.Slots, r.words...), append(x.Fresh, r.fresh)
			votes = votes || i > 0 && !r.fresh
		}
		if c := Choose(x); votes && (len(c.Holders) == 0 && c.Step != durable || len(c.Holders) > 0 &&
			c.Fingerprint != Fingerprint{Hi: right(c.Step)}) {
			t.Fatalf("%+v, by %v, of which the first lies", c, ranks)
		}
	}
	for _, liar := range liars {
		for _, a := range honest {
			for _, b := range honest {
				check(liar, a, b)
				for _, c := range honest {
					check(liar, a, b, c)
				}
			}
		}
	}
}

// FuzzChoose: any words give a choice that all ranks can act on.
func FuzzChoose(f *testing.F) {
	f.Add(int64(3), int64(9), int64(1), int64(math.MaxInt64), int64(math.MinInt64), int64(-1), uint8(3), uint8(2))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, durableStep int64, size, fresh uint8) {
		words := []int64{a, b, c, d, e}
		x := Exchange{DurableStep: min(max(durableStep, 0), 100), Total: 100}
		for r := range int(size%9) + 1 {
			for w := range SlotWords {
				x.Slots = append(x.Slots, words[(r*int(size)+w*7)%5])
			}
			x.Fresh = append(x.Fresh, fresh>>(r%8)&1 == 1)
		}
		got := Choose(x)
		if got.Step < 0 || got.Step > x.Total || len(got.Holders) > 0 && !got.Has(got.Source(int(size), d)) {
			t.Fatalf("%+v gives %+v", x, got)
		}
	})
}
