package allreduce

import "testing"

func BenchmarkAdd(b *testing.B) {
	const size = 64 << 10
	out, x, y := make([]byte, size), make([]byte, size), make([]byte, size)
	var in, sum checksum
	for name, f := range map[string]func(){
		"int64":   func() { addInt64(out, x, y, &in, &sum) },
		"float32": func() { addFloat32(out, x, y, &in, &sum) },
		"copy":    func() { copyChecked(out, x, &sum) },
		"memmove": func() { copy(out, x) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				f()
			}
		})
	}
}
