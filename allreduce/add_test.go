package allreduce

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestAdd compares addInt64, fed with pieces, with a plain loop.
func TestAdd(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for n := range 200 {
		a, b := make([]int64, n), make([]int64, n)
		for i := range a {
			a[i], b[i] = int64(rng.Uint64()), int64(rng.Uint64())
		}
		want := make([]int64, n)
		for i := range want {
			want[i] = a[i] + b[i]
		}
		out := make([]int64, n)
		if n%2 == 0 {
			out = a // in place
		}
		var in, sum, wantIn, wantSum checksum
		var carry [stripe]byte
		eachStripes(pieces(bytesOf(b), rng), &carry, func(at int, p []byte) {
			addInt64(bytesOf(out)[at:at+len(p)], bytesOf(a)[at:at+len(p)], p, &in, &sum)
		})
		copyChecked(make([]byte, n*width), bytesOf(b), &wantIn)
		copyChecked(make([]byte, n*width), bytesOf(want), &wantSum)
		if !slices.Equal(bytesOf(out), bytesOf(want)) || in != wantIn || sum != wantSum {
			t.Fatalf("%d elements: got %v, expected %v, or a checksum is wrong", n, out, want)
		}
	}
}

// The vectorised checksum must equal the plain one: members with and without those instructions share a ring.
func TestChecksumIsTheSameOnAnyMachine(t *testing.T) {
	b := make([]byte, 10*stripe)
	for i := range b {
		b[i] = byte(i * i)
	}
	var fast, plain checksum
	copyChecked(make([]byte, len(b)), b, &fast)
	for i := 0; i < len(b); i += stripe {
		plain.take((*[stripe]byte)(b[i:]))
	}
	if fast != plain {
		t.Fatalf("got lanes %x, expected %x", fast, plain)
	}
	if got, want := plain.digest(), uint64(0); got == want {
		t.Fatalf("a digest of zero")
	}
}

func BenchmarkAdd(b *testing.B) {
	const size = 64 << 10
	out, x, y := make([]byte, size), make([]byte, size), make([]byte, size)
	var in, sum checksum
	for name, f := range map[string]func(){
		"int64":   func() { addInt64(out, x, y, &in, &sum) },
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
