package exact

import "math"

// magic is 1.5 * 2^52. Adding it leaves no binary places, so that the sum rounds to nearest even in the addition
// itself; its bits then count quanta. Three times as fast as RoundToEven, and correct up to 2^51 quanta.
const magic = 3 << 51

// addBlock adds the quantised elements of a block to dst, two a word, and returns the bits of its largest magnitude.
// What it adds for an element beyond the range of an int32 has no meaning, and depends on the processor.
func addBlock(dst []int64, grad []float32, scale float32) (top uint32) {
	n, top := addVectors(dst, grad, scale)
	for i := n; i < len(grad); i++ {
		top = max(top, math.Float32bits(grad[i])&^(1<<31))
		// The outer conversion keeps compilers from fusing product and sum.
		bits := math.Float64bits(float64(float64(grad[i])*float64(scale)) + magic)
		dst[i/2] += int64(int32(bits-math.Float64bits(magic))) << (i % 2 * 32)
	}
	return top
}

// meanBlock divides the elements of a block.
func meanBlock(dst []float32, sum []int64, divisor float64) {
	for i := meanVectors(dst, sum, divisor); i < len(dst); i++ {
		lo, hi := pair(sum[i/2])
		if i%2 == 1 {
			lo = hi
		}
		dst[i] = float32(float64(lo) / divisor)
	}
}

// pair takes a word apart.
func pair(word int64) (lo, hi int32) {
	lo = int32(word)
	return lo, int32((word - int64(lo)) >> 32)
}
