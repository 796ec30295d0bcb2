// Package exact makes sums independent of the order of additions: what is summed are integers, and integer addition is
// associative and commutative. So ring order, the number of workers and the order of threads cannot change a bit. All
// of it is specified to the last bit and the same on every architecture: products by a power of two are exact, every
// rounding is to nearest even, and no expression is fused into a multiply-add.
//
// There are two formats. Losses are fixed point in an int64, a quantum of 2^-ScaleBits (Quantise, Value). Gradients are
// int32 with a power of two for each block of 256 elements (Blocks), so that they take as many bytes as float32.
package exact

import "math"

// ScaleBits is the number of binary places of fixed point: a quantum is 2^-ScaleBits.
const ScaleBits = 40

const scale = 1 << ScaleBits

// Limit returns the bound, 2^62/v, that the magnitude of each of v >= 1 addends in an int64 must stay below.
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
