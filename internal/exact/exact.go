// Package exact is the fixed-point arithmetic that makes a sum of gradients independent of the order of additions.
//
// A float32 is quantised once, on its own, to a multiple of 2^-ScaleBits held in an int64. Integers are then added:
// that is associative and commutative, so ring order, the number of workers and the order of threads cannot change a
// bit. The division by the total weight comes once, after the reduce (Mean). All of it is specified to the last bit and
// the same on every architecture: products by a power of two are exact, every rounding is to nearest even, and no
// expression is fused into a multiply-add.
//
// Of V addends each is below 2^62/V (Limit), so that a sum stays below 2^62 and cannot overflow. With V = 8 the limit
// is 524,288 and the resolution 9.1e-13.
package exact

import (
	"math"
	"sort"
)

// ScaleBits is the number of binary places: a quantum is 2^-ScaleBits.
const ScaleBits = 40

const scale = 1 << ScaleBits

// Limit returns the bound, 2^62/v, that the magnitude of each of v >= 1 quantised addends must stay below.
func Limit(v int) int64 { return (1 << 62) / int64(max(v, 1)) }

// Quantise returns x in quanta, rounded to nearest even. It reports false, and 0, if x is not finite or its magnitude
// exceeds 2^62 quanta (4,194,304).
func Quantise(x float64) (int64, bool) {
	q := math.RoundToEven(x * scale)
	if !(math.Abs(q) <= 1<<62) {
		return 0, false
	}
	return int64(q), true
}

// Value returns the number that q quanta stand for, rounded to nearest even where a float64 cannot hold it.
func Value(q int64) float64 { return float64(q) / scale }

// Accumulate adds grad, quantised, to dst, which is at least as long. It first checks that every element is finite and
// that its quantised magnitude is below Limit(v); if not, it adds nothing and returns the index of the first bad
// element. Otherwise it returns -1. Concurrent calls need a dst each; Add adds those.
func Accumulate(dst []int64, grad []float32, v int) (bad int) {
	dst = dst[:len(grad)]
	if firstAbove(grad, min(largestBits(v), fastBits)) < 0 {
		// See magic. The outer conversion keeps compilers from fusing product and sum.
		for i := addQuanta(dst, grad); i < len(grad); i++ {
			dst[i] += int64(math.Float64bits(float64(float64(grad[i])*scale)+magic) - math.Float64bits(magic))
		}
		return -1
	}
	if bad := firstAbove(grad, largestBits(v)); bad >= 0 {
		return bad
	}
	for i, g := range grad {
		dst[i] += int64(math.RoundToEven(float64(g) * scale))
	}
	return -1
}

// magic is 1.5 * 2^52. Adding it leaves no binary places, so that the sum rounds to nearest even in the addition
// itself; its bits then count quanta. Three times as fast as RoundToEven, and correct up to 2^51 quanta.
const magic = 3 << 51

// fastBits are the bits of 2048 = 2^51 quanta.
const fastBits = (127 + 11) << 23

// firstAbove returns the index of the first element whose magnitude has larger bits, or -1. Positive floats order as
// their bits do; infinities and NaN have the largest.
func firstAbove(grad []float32, bits uint32) int {
	largest, start := largestOf(grad)
	if largest > bits {
		start = 0
	}
	for i := start; i < len(grad); i++ {
		if math.Float32bits(grad[i])&^(1<<31) > bits {
			return i
		}
	}
	return -1
}

// largestBits returns the bits of the largest float32 whose quantised value is below Limit(v).
func largestBits(v int) uint32 {
	limit := Limit(v)
	infinity := int(math.Float32bits(float32(math.Inf(1))))
	return uint32(sort.Search(infinity, func(bits int) bool {
		q, ok := Quantise(float64(math.Float32frombits(uint32(bits))))
		return !ok || q >= limit
	}) - 1)
}

// Add adds src to dst, which is at least as long.
func Add(dst, src []int64) {
	dst = dst[:len(src)]
	for i, q := range src {
		dst[i] += q
	}
}

// Mean writes float32(sum / 2^ScaleBits / weight) to dst, which is at least as long as sum: the sum as a float64
// divided once by the float64 weight * 2^ScaleBits, each rounded to nearest even. The total weight counts samples, and
// is at least 1 and below 2^53.
func Mean(dst []float32, sum []int64, weight int64) {
	divisor := float64(weight) * scale
	dst = dst[:len(sum)]
	for i, q := range sum {
		dst[i] = float32(float64(q) / divisor)
	}
}
