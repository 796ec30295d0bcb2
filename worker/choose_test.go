package worker

import (
	"testing"

	"evenweave/state"
)

// FuzzChoose compares Choose with its definition, told in another way: count, for every claim, who is ahead of it and who agrees.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{0x51, 0x51, 0x41}, int8(3))
	f.Add([]byte{0x51, 0x52}, int8(0))
	f.Add([]byte{0, 0, 0}, int8(4))
	f.Fuzz(func(t *testing.T, claims []byte, at int8) {
		if len(claims) == 0 || len(claims) > 9 {
			t.Skip()
		}
		floor := int64(max(0, at)) % 16
		slots := make([]int64, 3*len(claims))
		for r, c := range claims { // high half: step + 1; low half: which state of that step
			slots[3*r], slots[3*r+1], slots[3*r+2] = int64(c>>4), int64(c&3), int64(c&12)
		}
		same := func(a, b int) bool {
			return slots[3*a] == slots[3*b] && slots[3*a+1] == slots[3*b+1] && slots[3*a+2] == slots[3*b+2]
		}
		winners, best := []int{}, 0
		for a := range claims {
			n, beaten := 0, slots[3*a] < floor+1
			for b := range claims {
				beaten = beaten || slots[3*b] > slots[3*a]
				if same(a, b) {
					n++
				}
			}
			if beaten || n < best {
				continue
			}
			if n > best {
				winners, best = winners[:0], n
			}
			winners = append(winners, a)
		}
		got := Choose(slots, floor)
		if len(winners) == 0 || len(winners) > best { // nobody, or a tie
			if len(got.Holders) != 0 || got.Step != floor || got.Agreed {
				t.Fatalf("Choose(%v, %d) = %+v, want the checkpoint of the floor", slots, floor, got)
			}
			return
		}
		for r := range claims {
			if got.Has(r) != same(r, winners[0]) {
				t.Fatalf("Choose(%v, %d) = %+v, want the holders %v", slots, floor, got, winners)
			}
		}
		w := winners[0]
		want := state.Fingerprint{Hi: slots[3*w+1], Lo: slots[3*w+2]}
		if got.Step != slots[3*w]-1 || got.Print != want || got.Agreed != (len(winners) == len(claims)) {
			t.Fatalf("Choose(%v, %d) = %+v, want rank %d's", slots, floor, got, w)
		}
		if source := got.Source(0, 7); !got.Has(source) {
			t.Fatalf("source %d is no holder of %+v", source, got)
		}
	})
}
