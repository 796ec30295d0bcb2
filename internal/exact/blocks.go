package exact

import (
	"fmt"
	"math"
	"math/bits"
)

// BlockSize is the number of elements that share an exponent; a tensor's last block may be shorter.
const BlockSize = 256

// Exponents count from Origin: in a block of exponent x a quantum is 2^(x+Origin). All are 0 before the first step.
const (
	Origin      = -40
	MinExponent = -22
	MaxExponent = 140
)

// The rule for the exponents of the next step, see Next.
const (
	sumBits   = 31 // the bits of a sum's magnitude in an int32
	margin    = 6  // of them unused in a step whose bounds are those of the step before
	fallEvery = 16 // steps, after which an exponent may fall by one
	spread    = 8  // how far a block's exponent may be below the largest of its tensor
)

// Blocks cuts a gradient, the elements of several tensors one after the other, into blocks that lie within one tensor.
//
// A step's sum is formed in two slices of int64. One has Words words, each of which holds two int32, lo + hi*2^32, so
// that sums of words are sums of both. The other has Count bounds: for each block the sum, over the micro-batches, of
// the largest magnitude in it, in quanta. A bound limits the sum of each element of its block, and each partial sum in
// any order. If no bound exceeds the range of an int32, all sums are exact; otherwise Raise says with which exponents
// to compute the step again.
type Blocks struct {
	blocks  []block
	tensors []int // index of each tensor's first block, and the number of blocks
	words   int
}

type block struct{ lo, hi, word int }

// NewBlocks cuts the gradient of tensors of that many elements each.
func NewBlocks(elements []int) *Blocks {
	b := &Blocks{tensors: []int{0}}
	at := 0
	for _, n := range elements {
		for end := at + n; at < end; {
			hi := min(at+BlockSize, end)
			b.blocks = append(b.blocks, block{at, hi, b.words})
			b.words += (hi - at + 1) / 2
			at = hi
		}
		b.tensors = append(b.tensors, len(b.blocks))
	}
	return b
}

// Count is the number of blocks.
func (b *Blocks) Count() int { return len(b.blocks) }

// Words is the number of int64 that hold a sum.
func (b *Blocks) Words() int { return b.words }

// First is the first element of a block.
func (b *Blocks) First(i int) int { return b.blocks[i].lo }

// Check refuses exponents that no step leaves.
func (b *Blocks) Check(exponents []int32) error {
	if len(exponents) != len(b.blocks) {
		return fmt.Errorf("%d exponents: expected %d, one a block of the gradient", len(exponents), len(b.blocks))
	}
	for i, x := range exponents {
		if x < MinExponent || x > MaxExponent {
			return fmt.Errorf("exponent %d of block %d: expected %d to %d", x, i, MinExponent, MaxExponent)
		}
	}
	return nil
}

// Accumulate quantises the gradient of one of v micro-batches and adds it to sum, and the magnitudes of its blocks to
// bounds. It returns the index of the first element that is not finite, or -1; after such an element both are void.
// Concurrent calls need a sum and bounds each.
func (b *Blocks) Accumulate(sum, bounds []int64, grad []float32, exponents []int32, v int) (bad int) {
	return b.AccumulateBlocks(0, len(b.blocks), sum, bounds, grad, exponents, v)
}

// AccumulateBlocks is Accumulate for the blocks from lo to hi. Calls for other blocks may run at the same time.
func (b *Blocks) AccumulateBlocks(lo, hi int, sum, bounds []int64, grad []float32, exponents []int32,
	v int) (bad int) {
	limit := Limit(v)
	for i := lo; i < hi; i++ {
		block := b.blocks[i]
		part := grad[block.lo:block.hi]
		scale := math.Ldexp(1, -Origin-int(exponents[i]))
		top := addBlock(sum[block.word:], part, float32(scale))
		if top >= infinite {
			return block.lo + firstInfinite(part)
		}
		if q := math.RoundToEven(float64(math.Float32frombits(top)) * scale); q < float64(limit) {
			bounds[i] += int64(q)
		} else {
			bounds[i] += limit
		}
	}
	return -1
}

// Raise reports whether a bound exceeds the range of an int32: then the sum is void, and the step is computed again
// with the exponents that the bounds ask for, in which Raise changes those that were too small. It returns the first
// such block, or -1.
func (b *Blocks) Raise(exponents []int32, bounds []int64) (first int) {
	first = -1
	for i, bound := range bounds {
		if bound > math.MaxInt32 {
			exponents[i] = min(wanted(exponents[i], bound), MaxExponent)
			if first < 0 {
				first = i
			}
		}
	}
	return first
}

// wanted is the exponent in which a bound leaves the margin free.
func wanted(exponent int32, bound int64) int32 {
	return exponent + int32(bits.Len64(uint64(bound))) - (sumBits - margin)
}

// Next changes the exponents of a step into those of the step after it, given the bounds of its sum. An exponent rises
// at once, so that the margin is free again. It falls by one in every 16th step at most: otherwise gradients that come
// and go would be computed twice each time they come back. That of a block without a gradient stays. None falls far
// below the largest of its tensor: in a table of embeddings the next step may be about other rows.
func (b *Blocks) Next(exponents []int32, bounds []int64, step int64) {
	fall := int32(0)
	if step%fallEvery == fallEvery-1 {
		fall = 1
	}
	for t, lo := range b.tensors[:len(b.tensors)-1] {
		top := int32(MinExponent)
		for i := lo; i < b.tensors[t+1]; i++ {
			if bounds[i] > 0 {
				exponents[i] = max(wanted(exponents[i], bounds[i]), exponents[i]-fall)
			}
			exponents[i] = min(max(exponents[i], MinExponent), MaxExponent)
			top = max(top, exponents[i])
		}
		for i := lo; i < b.tensors[t+1]; i++ {
			exponents[i] = max(exponents[i], top-spread)
		}
	}
}

// Mean writes sum / weight to dst, as long as the gradient: each element's sum as a float64 divided once by the float64
// weight * 2^-(exponent+Origin), rounded to float32. The total weight counts samples, and is at least 1 and below 2^53.
func (b *Blocks) Mean(dst []float32, sum []int64, exponents []int32, weight int64) {
	b.MeanOf(0, len(b.blocks), dst, sum, exponents, weight)
}

// MeanOf is Mean for the blocks from lo to hi. Calls for other blocks may run at the same time.
func (b *Blocks) MeanOf(lo, hi int, dst []float32, sum []int64, exponents []int32, weight int64) {
	for i := lo; i < hi; i++ {
		block := b.blocks[i]
		meanBlock(dst[block.lo:block.hi], sum[block.word:], math.Ldexp(float64(weight), -Origin-int(exponents[i])))
	}
}

// Repeats is how often a step may be computed again. Two are enough for each exponent and all gradients of any use, see
// TestTwiceAtMost: the first bound may be too large for its int64.
const Repeats = 2

// Step does all of a step in one process: it writes the mean of the micro-batches' gradients to dst, and makes the
// exponents those of the next step. It returns the micro-batch and the first element that is not finite or, after all
// repeats, too large; otherwise -1. After such an element dst and exponents are void.
func (b *Blocks) Step(dst []float32, grads [][]float32, exponents []int32, weight, step int64) (v, bad int) {
	sum, bounds := make([]int64, b.words), make([]int64, len(b.blocks))
	for range 1 + Repeats {
		clear(sum)
		clear(bounds)
		for v, grad := range grads {
			if bad := b.Accumulate(sum, bounds, grad, exponents, len(grads)); bad >= 0 {
				return v, bad
			}
		}
		first := b.Raise(exponents, bounds)
		if first < 0 {
			b.Mean(dst, sum, exponents, weight)
			b.Next(exponents, bounds, step)
			return -1, -1
		}
		v, bad = 0, b.blocks[first].lo
	}
	return v, bad
}

// infinite are the bits of infinity. Positive floats order as their bits do; NaN have larger ones.
const infinite = 0xff << 23

func firstInfinite(grad []float32) int {
	for i, g := range grad {
		if math.Float32bits(g)&^(1<<31) >= infinite {
			return i
		}
	}
	return -1
}
