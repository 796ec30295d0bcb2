package policy

import (
	"testing"
)

// FuzzChoose compares Choose with its definition, told in another way: count, for every claim, who is ahead of it and who agrees.
func FuzzChoose(f *testing.F) {
	f.Add([]byte{0x51, 0x51, 0x41}, int8(3), uint64(0))
	f.Add([]byte{0x51, 0x52}, int8(0), uint64(0x13))
	f.Add([]byte{0, 0, 0}, int8(4), uint64(0x500))
	f.Fuzz(func(t *testing.T, claims []byte, at int8, durable uint64) {
		if len(claims) == 0 || len(claims) > 9 {
			t.Skip()
		}
		floor := int64(max(0, at)) % 16
		slots, newest := make([]int64, SlotWords*len(claims)), floor
		for r, c := range claims { // high half: step + 1; low half: which state of that step; and a half byte of durable
			told := int64(durable >> (4 * r) & 15)
			copy(slots[SlotWords*r:], []int64{int64(c >> 4), int64(c & 3), int64(c & 12), told})
			newest = max(newest, told)
		}
		same := func(a, b int) bool {
			return slots[SlotWords*a] == slots[SlotWords*b] && slots[SlotWords*a+1] == slots[SlotWords*b+1] && slots[SlotWords*a+2] == slots[SlotWords*b+2]
		}
		winners, best := []int{}, 0
		for a := range claims {
			n, beaten := 0, slots[SlotWords*a] < newest+1
			for b := range claims {
				beaten = beaten || slots[SlotWords*b] > slots[SlotWords*a]
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
			if len(got.Holders) != 0 || got.Step != newest || got.Agreed {
				t.Fatalf("Choose(%v, %d) = %+v, want the newest durable checkpoint", slots, floor, got)
			}
			return
		}
		for r := range claims {
			if got.Has(r) != same(r, winners[0]) {
				t.Fatalf("Choose(%v, %d) = %+v, want the holders %v", slots, floor, got, winners)
			}
		}
		w := winners[0]
		want := Fingerprint{Hi: slots[SlotWords*w+1], Lo: slots[SlotWords*w+2]}
		if got.Step != slots[SlotWords*w]-1 || got.Print != want || got.Agreed != (len(winners) == len(claims)) {
			t.Fatalf("Choose(%v, %d) = %+v, want rank %d's", slots, floor, got, w)
		}
		if source := got.Source(0, 7); !got.Has(source) {
			t.Fatalf("source %d is no holder of %+v", source, got)
		}
	})
}
