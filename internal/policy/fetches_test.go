package policy

import (
	"testing"
	"time"
)

// A rank may fetch forever as long as blocks arrive; one that says so without more of them is found, whatever it
// reports instead, and only after the limit.
func TestAFetchWithoutProgressIsFound(t *testing.T) {
	const limit = 8 * time.Second
	for name, c := range map[string]struct {
		words func(i int) (word, step int64) // of rank 1, each second
		found bool
	}{
		"slow":              {func(i int) (int64, int64) { return 1 + int64(i)/7, 5 }, false},
		"without a block":   {func(int) (int64, int64) { return 1, 5 }, true},
		"stuck half way":    {func(i int) (int64, int64) { return min(1+int64(i), 20), 5 }, true},
		"up and down":       {func(i int) (int64, int64) { return 1 + int64(i)%2, 5 }, true},
		"not fetching":      {func(int) (int64, int64) { return 0, 5 }, false},
		"again and again":   {func(i int) (int64, int64) { return int64(i) % 8, 5 }, false}, // exchanges are counted
		"another state":     {func(i int) (int64, int64) { return 1 + int64(i)%8, int64(i) / 8 }, false},
		"an impossible one": {func(int) (int64, int64) { return -7, 5 }, false},
	} {
		var f Fetches
		now, began, found := time.Unix(0, 0), time.Unix(0, 0), false
		for i := range 100 {
			word, step := c.words(i)
			x := Exchange{Slots: make([]int64, 3*SlotWords)}
			x.Slots[SlotWords+4] = word
			x.Slots[4] = 1 // rank 0, whose own deadline ends its fetch
			r := f.Stalled(x, step, 0, now, limit)
			if found = found || r >= 0; r >= 0 && (r != 1 || now.Sub(began) <= limit) {
				t.Errorf("%s: rank %d is found after %v", name, r, now.Sub(began))
			}
			now = now.Add(time.Second)
		}
		if found != c.found {
			t.Errorf("%s: found is %v", name, found)
		}
	}
}
