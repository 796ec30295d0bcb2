//go:build amd64 && goexperiment.simd

package allreduce

import "simd/archsimd"

// avx2 is whether this CPU has the instructions used here; without them the plain code does everything.
var avx2 = archsimd.X86.AVX2()

// The functions below do whole stripes only and return how many bytes they have done.

func copyStripes(dst, src []byte, sum *checksum) int {
	if !avx2 {
		return 0
	}
	left, right := archsimd.BroadcastUint64x4(rotate), archsimd.BroadcastUint64x4(64-rotate)
	s0, s1 := archsimd.LoadUint64x4Slice(sum[:4]), archsimd.LoadUint64x4Slice(sum[4:])
	n := len(src) - len(src)%stripe
	for ; len(src) >= stripe && len(dst) >= stripe; src, dst = src[stripe:], dst[stripe:] {
		b0, b1 := archsimd.LoadUint8x32Slice(src), archsimd.LoadUint8x32Slice(src[32:])
		b0.StoreSlice(dst)
		b1.StoreSlice(dst[32:])
		s0, s1 = rotated(s0, left, right).Add(b0.AsUint64x4()), rotated(s1, left, right).Add(b1.AsUint64x4())
	}
	s0.StoreSlice(sum[:4])
	s1.StoreSlice(sum[4:])
	archsimd.ClearAVXUpperBits() // otherwise later code with older instructions is slow
	return n
}

func addInt64Stripes(out, a, b []byte, in, sum *checksum) int {
	if !avx2 {
		return 0
	}
	left, right := archsimd.BroadcastUint64x4(rotate), archsimd.BroadcastUint64x4(64-rotate)
	i0, i1 := archsimd.LoadUint64x4Slice(in[:4]), archsimd.LoadUint64x4Slice(in[4:])
	s0, s1 := archsimd.LoadUint64x4Slice(sum[:4]), archsimd.LoadUint64x4Slice(sum[4:])
	n := len(out) - len(out)%stripe
	for ; len(out) >= stripe && len(a) >= stripe && len(b) >= stripe; out, a, b = out[stripe:], a[stripe:], b[stripe:] {
		b0, b1 := archsimd.LoadUint8x32Slice(b).AsUint64x4(), archsimd.LoadUint8x32Slice(b[32:]).AsUint64x4()
		i0, i1 = rotated(i0, left, right).Add(b0), rotated(i1, left, right).Add(b1)
		b0 = b0.Add(archsimd.LoadUint8x32Slice(a).AsUint64x4())
		b1 = b1.Add(archsimd.LoadUint8x32Slice(a[32:]).AsUint64x4())
		b0.AsUint8x32().StoreSlice(out)
		b1.AsUint8x32().StoreSlice(out[32:])
		s0, s1 = rotated(s0, left, right).Add(b0), rotated(s1, left, right).Add(b1)
	}
	i0.StoreSlice(in[:4])
	i1.StoreSlice(in[4:])
	s0.StoreSlice(sum[:4])
	s1.StoreSlice(sum[4:])
	archsimd.ClearAVXUpperBits() // otherwise later code with older instructions is slow
	return n
}

// rotated rotates every lane. The counts are vectors because the compiler's instruction for a shift by a constant is
// very slow beside the others here.
func rotated(x, left, right archsimd.Uint64x4) archsimd.Uint64x4 {
	return x.ShiftLeft(left).Or(x.ShiftRight(right))
}
