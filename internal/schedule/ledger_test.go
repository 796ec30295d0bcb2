package schedule

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

func encode(t *testing.T, l *Ledger) []byte {
	t.Helper()
	b, err := l.AppendBinary(nil)
	if err != nil || len(b) != LedgerSize(l.Samples()) {
		t.Fatalf("%d bytes, %v: expected %d", len(b), err, LedgerSize(l.Samples()))
	}
	return b
}

func TestLedgerRefuses(t *testing.T) {
	l := NewLedger(100)
	if err := l.Commit(0, []int32{5, evenweave.Padding, 64}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		epoch   int64
		samples []int32
		want    string
	}{
		{0, []int32{1, 2, 64}, "sample 64 used twice in epoch 0"},
		{0, []int32{1, 1}, "sample 1 used twice in epoch 0"},
		{0, []int32{1, 100}, "sample 100 committed in epoch 0: expected 0 to 99"},
		{0, []int32{-2}, "sample -2 committed"},
		{1, []int32{1}, "missing: 0, 1, 2, 3, 4, ..."},
	} {
		before := encode(t, l)
		err := l.Commit(c.epoch, c.samples)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("Commit(%d, %v): %v: expected %q", c.epoch, c.samples, err, c.want)
		}
		if l.Used() != 2 || !bytes.Equal(before, encode(t, l)) {
			t.Errorf("Commit(%d, %v) failed and left a trace", c.epoch, c.samples)
		}
	}
}

// A ledger agrees with a map of what was used, at any moment and after a round trip through bytes.
func TestLedgerAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 100 {
		n := 1 + r.IntN(200)
		l := NewLedger(n)
		used, epochs := map[int32]bool{}, int64(0)
		for range 100 {
			batch := make([]int32, r.IntN(20))
			bad := false
			seen := map[int32]bool{}
			for i := range batch {
				batch[i] = int32(r.IntN(n+1)) - 1
				if batch[i] != evenweave.Padding {
					bad = bad || used[batch[i]] || seen[batch[i]]
					seen[batch[i]] = true
				}
			}
			clone := l.Clone()
			if err := l.Commit(epochs, batch); (err != nil) != bad {
				t.Fatalf("Commit(%v): %v", batch, err)
			}
			if !bad {
				for s := range seen {
					used[s] = true
				}
			} else if !bytes.Equal(encode(t, clone), encode(t, l)) {
				t.Fatal("a refused commit left a trace")
			}
			if len(used) == n {
				used, epochs = map[int32]bool{}, epochs+1
			}
			decoded, err := DecodeLedger(encode(t, l))
			if err != nil {
				t.Fatal(err)
			}
			if l.Used() != len(used) || l.Epochs() != epochs || decoded.Used() != len(used) ||
				decoded.Epochs() != epochs ||
				!bytes.Equal(encode(t, l), encode(t, decoded)) {
				t.Fatalf("used %d, epochs %d; decoded %d, %d; expected %d, %d",
					l.Used(), l.Epochs(), decoded.Used(), decoded.Epochs(), len(used), epochs)
			}
		}
	}
}

func FuzzDecodeLedger(f *testing.F) {
	l := NewLedger(70)
	if err := l.Commit(0, []int32{0, 69}); err != nil {
		f.Fatal(err)
	}
	b, _ := l.AppendBinary(nil)
	f.Add(b)
	f.Add(b[:20])
	f.Add(bytes.Repeat([]byte{0xff}, 32))
	f.Fuzz(func(t *testing.T, src []byte) {
		l, err := DecodeLedger(slices.Clone(src))
		if err == nil && !bytes.Equal(encode(t, l), src) {
			t.Fatal("decoding and encoding gives other bytes")
		}
	})
}

func BenchmarkLedgerCommit(b *testing.B) {
	order := Order(1, 0, 60000)
	l := NewLedger(60000)
	for i := 0; b.Loop(); i = (i + 125) % 60000 {
		if err := l.Commit(l.Epochs(), order[i:i+125]); err != nil {
			b.Fatal(err)
		}
	}
}
