//go:build amd64 && goexperiment.simd

package allreduce

import "simd/archsimd"

var avx2 = archsimd.X86.AVX2()

func addInt64(out, a, b []byte) {
	if avx2 {
		for len(out) >= 64 && len(a) >= 64 && len(b) >= 64 {
			x := archsimd.LoadUint8x32Slice(a).AsInt64x4().Add(archsimd.LoadUint8x32Slice(b).AsInt64x4())
			y := archsimd.LoadUint8x32Slice(a[32:]).AsInt64x4().Add(archsimd.LoadUint8x32Slice(b[32:]).AsInt64x4())
			x.AsUint8x32().StoreSlice(out)
			y.AsUint8x32().StoreSlice(out[32:])
			out, a, b = out[64:], a[64:], b[64:]
		}
	}
	addInt64Plain(out, a, b)
}

func addFloat32(out, a, b []byte) {
	if avx2 {
		for len(out) >= 64 && len(a) >= 64 && len(b) >= 64 {
			x := archsimd.LoadUint8x32Slice(a).AsFloat32x8().Add(archsimd.LoadUint8x32Slice(b).AsFloat32x8())
			y := archsimd.LoadUint8x32Slice(a[32:]).AsFloat32x8().Add(archsimd.LoadUint8x32Slice(b[32:]).AsFloat32x8())
			x.AsUint8x32().StoreSlice(out)
			y.AsUint8x32().StoreSlice(out[32:])
			out, a, b = out[64:], a[64:], b[64:]
		}
	}
	addFloat32Plain(out, a, b)
}
