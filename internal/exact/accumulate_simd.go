//go:build amd64 && goexperiment.simd

package exact

import (
	"math"
	"simd/archsimd"
)

// avx2 is whether this CPU has the instructions used here; without them the plain code does everything.
var avx2 = archsimd.X86.AVX2()

// Both functions do a multiple of four elements and return how many; the caller does the rest.

// addQuanta is the loop of Accumulate: the same operations in the same order on each element, so the same bits.
func addQuanta(dst []int64, grad []float32) int {
	if !avx2 {
		return 0
	}
	n := len(grad) &^ 3
	scales, shift := archsimd.BroadcastFloat64x4(scale), archsimd.BroadcastFloat64x4(magic)
	offset := archsimd.BroadcastInt64x4(int64(math.Float64bits(magic)))
	for ; len(grad) >= 4 && len(dst) >= 4; grad, dst = grad[4:], dst[4:] {
		quanta := archsimd.LoadFloat32x4Slice(grad).ConvertToFloat64().Mul(scales).Add(shift).AsInt64x4().Sub(offset)
		archsimd.LoadInt64x4Slice(dst).Add(quanta).StoreSlice(dst)
	}
	archsimd.ClearAVXUpperBits() // otherwise later code with older instructions is slow
	return n
}

// largestOf returns the largest magnitude's bits among the elements done.
func largestOf(grad []float32) (largest uint32, done int) {
	if !avx2 {
		return 0, 0
	}
	n := len(grad) &^ 3
	magnitude := archsimd.BroadcastUint32x4(1<<31 - 1)
	top := archsimd.BroadcastUint32x4(0)
	for rest := grad[:n]; len(rest) >= 4; rest = rest[4:] {
		top = top.Max(archsimd.LoadFloat32x4Slice(rest).AsUint32x4().And(magnitude))
	}
	var lanes [4]uint32
	top.StoreSlice(lanes[:])
	archsimd.ClearAVXUpperBits()
	return max(lanes[0], lanes[1], lanes[2], lanes[3]), n
}
