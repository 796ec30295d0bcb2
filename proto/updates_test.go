package proto_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"evenweave/proto"
)

// TestWordsArriveAsTheyWere, in parts of any size.
func TestWordsArriveAsTheyWere(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range [][2]int{{0, 0}, {1, 0}, {0, 1}, {3, 5}, {40000, 3}, {5, 100000}, {32768, 32768}} {
		exponents, words := make([]int32, size[0]), make([]int64, size[1])
		for i := range exponents {
			exponents[i] = int32(r.Uint32())
		}
		for i := range words {
			words[i] = int64(r.Uint64())
		}
		w := &proto.Words{Exponents: make([]int32, size[0]), Words: make([]int64, size[1])}
		if err := proto.SendWords(exponents, words, func(part []byte) error {
			cut := 8 * r.IntN(len(part)/8+1) // another sender's parts may be smaller
			for _, p := range [][]byte{part[:cut], part[cut:]} {
				if len(p) == 0 {
					continue
				}
				if err := w.Take(p); err != nil {
					return err
				}
			}
			return nil
		}); err != nil || !w.Complete() {
			t.Fatalf("%v: %v, complete: %v", size, err, w.Complete())
		}
		if !slices.Equal(w.Exponents, exponents) || !slices.Equal(w.Words, words) {
			t.Errorf("%v: other words arrive than were sent", size)
		}
	}
}

// TestPartsOfNoStep: an error each, and nothing beyond the words that a step has is written.
func TestPartsOfNoStep(t *testing.T) {
	for name, part := range map[string][]byte{
		"nothing":         {},
		"half a word":     make([]byte, 12),
		"too many":        make([]byte, 8*4),
		"a wide exponent": {0: 0, 4: 1, 7: 0},
	} {
		w := &proto.Words{Exponents: make([]int32, 1), Words: make([]int64, 2)}
		if err := w.Take(part); err == nil || w.Complete() {
			t.Errorf("%s: %v, complete: %v", name, err, w.Complete())
		}
	}
	w := &proto.Words{Exponents: []int32{0}}
	if err := w.Take([]byte{0, 0, 0, 0x80, 0xff, 0xff, 0xff, 0xff}); err != nil || w.Exponents[0] != math.MinInt32 {
		t.Errorf("the smallest exponent arrives as %d: %v", w.Exponents[0], err)
	}
}

func BenchmarkWords(b *testing.B) {
	exponents, words := make([]int32, 1e5), make([]int64, 128e5)
	w := &proto.Words{Exponents: make([]int32, 1e5), Words: make([]int64, 128e5)}
	b.SetBytes(8 * 129e5)
	for b.Loop() {
		*w = proto.Words{Exponents: w.Exponents, Words: w.Words}
		if err := proto.SendWords(exponents, words, w.Take); err != nil {
			b.Fatal(err)
		}
	}
}
