//go:build amd64 && goexperiment.simd

package exact

import "simd/archsimd"

// avx2 is whether this CPU has the instructions used here; without them the plain code does everything.
var avx2 = archsimd.X86.AVX2()

// Both functions do a multiple of eight elements and return how many; the caller does the rest.

// addVectors is the loop of addBlock. The product with a power of two is exact, or so small that it rounds to 0.
func addVectors(dst []int64, grad []float32, scale float32) (done int, top uint32) {
	if !avx2 {
		return 0, 0
	}
	done = len(grad) &^ 7
	scales, magnitude := archsimd.BroadcastFloat32x8(scale), archsimd.BroadcastUint32x8(1<<31-1)
	sign, half := archsimd.BroadcastUint32x8(31), archsimd.BroadcastUint64x4(32)
	tops := archsimd.BroadcastUint32x8(0)
	for ; len(grad) >= 8 && len(dst) >= 4; grad, dst = grad[8:], dst[4:] {
		g := archsimd.LoadFloat32x8Slice(grad)
		tops = tops.Max(g.AsUint32x8().And(magnitude))
		q := g.Mul(scales).RoundToEven().ConvertToInt32()
		word := q.Add(borrow(q, sign, half)).AsInt64x4()
		archsimd.LoadInt64x4Slice(dst).Add(word).StoreSlice(dst)
	}
	var lanes [8]uint32
	tops.StoreSlice(lanes[:])
	archsimd.ClearAVXUpperBits() // otherwise later code with older instructions is slow
	for _, l := range lanes {
		top = max(top, l)
	}
	return done, top
}

// borrow is -1 in the upper half of each word whose lower half is negative. The counts are vectors because the
// compiler's instruction for a shift by a constant is very slow beside the others here.
func borrow(x archsimd.Int32x8, sign archsimd.Uint32x8, half archsimd.Uint64x4) archsimd.Int32x8 {
	return x.ShiftRight(sign.AsInt32x8()).AsUint64x4().ShiftLeft(half).AsInt32x8()
}

// meanVectors is the loop of meanBlock: the same operations on each element, so the same bits.
func meanVectors(dst []float32, sum []int64, divisor float64) (done int) {
	if !avx2 {
		return 0
	}
	done = len(dst) &^ 7
	divisors := archsimd.BroadcastFloat64x4(divisor)
	sign, half := archsimd.BroadcastUint32x8(31), archsimd.BroadcastUint64x4(32)
	for ; len(dst) >= 8 && len(sum) >= 4; dst, sum = dst[8:], sum[4:] {
		x := archsimd.LoadInt64x4Slice(sum).AsInt32x8()
		q := x.Sub(borrow(x, sign, half))
		q.GetLo().ConvertToFloat64().Div(divisors).ConvertToFloat32().StoreSlice(dst)
		q.GetHi().ConvertToFloat64().Div(divisors).ConvertToFloat32().StoreSlice(dst[4:])
	}
	archsimd.ClearAVXUpperBits() // otherwise later code with older instructions is slow
	return done
}
