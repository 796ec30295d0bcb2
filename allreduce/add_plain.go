//go:build !(amd64 && goexperiment.simd)

package allreduce

func addInt64(out, a, b []byte)   { addInt64Plain(out, a, b) }
func addFloat32(out, a, b []byte) { addFloat32Plain(out, a, b) }
