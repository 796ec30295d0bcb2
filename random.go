package evenweave

import "math/bits"

// The purposes that the trainer and the built-in task make keys for. Two different purposes give unrelated numbers for
// the same words; a task's own begin at 1000.
const (
	PurposeOrder   uint64 = 1 // words: epoch
	PurposeInit    uint64 = 2 // words: tensor, ... as the model documents
	PurposeDropout uint64 = 3 // words: step, micro-batch
	PurposeAugment uint64 = 4 // words: epoch, sample
	PurposeShuffle uint64 = 5 // of dataset.Shuffle; no words
)

const golden = 0x9e3779b97f4a7c15 // γ, the increment of SplitMix64

// Key returns the key for a purpose and the words that name one use of it:
//
//	h = mix(seed + γ); for each w of purpose, words...: h = mix((h ^ w) + γ)
//
// where γ is 2^64 divided by the golden ratio and mix is the finalizer of SplitMix64. Each round is a bijection of w,
// so keys that differ in one word always differ. The definition is part of the numerics: changing it changes every run.
func Key(seed, purpose uint64, words ...uint64) uint64 {
	h := mix((mix(seed+golden) ^ purpose) + golden)
	for _, w := range words {
		h = mix((h ^ w) + golden)
	}
	return h
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// Generator is SplitMix64 (Steele, Lea and Flood, 2014): the stream of numbers that a key stands for. The zero value is
// the stream of key 0. One goroutine uses a generator at a time; make one for each use.
type Generator struct{ state uint64 }

// NewGenerator returns the generator of a key.
func NewGenerator(key uint64) *Generator { return &Generator{key} }

// Uint64 returns the next 64 bits.
func (g *Generator) Uint64() uint64 {
	g.state += golden
	return mix(g.state)
}

// Below returns an unbiased number in [0, n), n > 0 (Lemire's method: the high word of a 128-bit product, redrawn in
// the few cases that would favour some numbers).
func (g *Generator) Below(n uint64) uint64 {
	high, low := bits.Mul64(g.Uint64(), n)
	for low < n && low < -n%n {
		high, low = bits.Mul64(g.Uint64(), n)
	}
	return high
}
