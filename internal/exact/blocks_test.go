package exact

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// total is what the micro-batches of a step sum to.
type total struct {
	sum, bounds []int64
	bad         int // of the first that is not finite, or -1
}

func (b *Blocks) newTotal() *total {
	return &total{make([]int64, b.Words()), make([]int64, b.Count()), -1}
}

func (s *total) add(o *total) {
	for i, w := range o.sum {
		s.sum[i] += w
	}
	for i, w := range o.bounds {
		s.bounds[i] += w
	}
}

func (b *Blocks) summed(grads [][]float32, exponents []int32) *total {
	s := b.newTotal()
	for _, g := range grads {
		if bad := b.Accumulate(s.sum, s.bounds, g, exponents, len(grads)); bad >= 0 && s.bad < 0 {
			s.bad = bad
		}
	}
	return s
}

// scattered sums the micro-batches in any order, on any number of ranks, merged in any order.
func (b *Blocks) scattered(r *rand.Rand, grads [][]float32, exponents []int32) *total {
	parts := make([]*total, 1+r.IntN(len(grads)))
	for i := range parts {
		parts[i] = b.newTotal()
	}
	for _, i := range r.Perm(len(grads)) {
		p := parts[r.IntN(len(parts))]
		b.Accumulate(p.sum, p.bounds, grads[i], exponents, len(grads))
	}
	for len(parts) > 1 {
		i := r.IntN(len(parts) - 1)
		parts[i].add(parts[i+1])
		parts = slices.Delete(parts, i+1, i+2)
	}
	return parts[0]
}

// step computes a step as the ranks do, again until no bound is too large. It returns the exponents that it took.
func (b *Blocks) step(grads [][]float32, committed []int32) (s *total, exponents []int32, again int) {
	exponents = slices.Clone(committed)
	for ; ; again++ {
		s = b.summed(grads, exponents)
		if s.bad >= 0 || b.Raise(exponents, s.bounds) < 0 {
			return s, exponents, again
		}
		if again == 10 {
			panic("computed again and again")
		}
	}
}

// checkSum compares each element, its bound and its mean with arbitrary precision.
func checkSum(t *testing.T, b *Blocks, grads [][]float32, exponents []int32, s *total, weight int64) {
	t.Helper()
	mean := make([]float32, len(grads[0]))
	b.Mean(mean, s.sum, exponents, weight)
	for i, block := range b.blocks {
		places := -Origin - int(exponents[i])
		bound := new(big.Int)
		for _, g := range grads {
			top := 0.0
			for _, x := range g[block.lo:block.hi] {
				top = max(top, math.Abs(float64(x)))
			}
			bound.Add(bound, oracle(top, places))
		}
		if bound.Cmp(big.NewInt(s.bounds[i])) != 0 {
			t.Fatalf("block %d: bound %d, expected %d", i, s.bounds[i], bound)
		}
		for at := block.lo; at < block.hi; at++ {
			want := new(big.Int)
			for _, g := range grads {
				want.Add(want, oracle(float64(g[at]), places))
			}
			lo, hi := pair(s.sum[block.word+(at-block.lo)/2])
			if (at-block.lo)%2 == 1 {
				lo = hi
			}
			if want.CmpAbs(bound) > 0 || want.Cmp(big.NewInt(int64(lo))) != 0 {
				t.Fatalf("element %d sums to %d, expected %d, bound %d", at, lo, want, bound)
			}
			divisor := new(big.Float).SetInt64(weight)
			divisor.SetMantExp(divisor, places)
			quotient := new(big.Float).SetPrec(53).SetMode(big.ToNearestEven).Quo(new(big.Float).SetInt(want), divisor)
			if m, _ := quotient.Float32(); math.Float32bits(m) != math.Float32bits(mean[at]) {
				t.Fatalf("element %d has mean %g, expected %g", at, mean[at], m)
			}
		}
	}
}

// The shapes have blocks that are whole, short, odd and single.
var shapes = [][]int{{1}, {2, 3}, {256}, {255, 257}, {7, 512, 1, 600}}

// gradients of v micro-batches whose elements and blocks differ widely in size.
func gradients(r *rand.Rand, b *Blocks, v int) [][]float32 {
	grads := make([][]float32, v)
	for i := range grads {
		grads[i] = make([]float32, b.blocks[len(b.blocks)-1].hi)
	}
	for _, block := range b.blocks {
		size := float64(20 - r.IntN(60))
		for _, g := range grads {
			for i := block.lo; i < block.hi; i++ {
				g[i] = float32(r.NormFloat64() * math.Exp2(size-float64(r.IntN(20))))
			}
		}
	}
	return grads
}

// The promise of the package: any order, any split into ranks and threads, any association gives the same bits, and
// they are those of the definition.
func TestSumIsIndependentOfOrderAndSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for round := range 60 {
		b := NewBlocks(shapes[round%len(shapes)])
		grads := gradients(r, b, 1+r.IntN(16))
		s, exponents, _ := b.step(grads, make([]int32, b.Count()))
		checkSum(t, b, grads, exponents, s, 1+r.Int64N(1<<20))
		for range 5 {
			if o := b.scattered(r, grads, exponents); !slices.Equal(o.sum, s.sum) || !slices.Equal(o.bounds, s.bounds) {
				t.Fatalf("another split gave other bits")
			}
		}
	}
}

// Whether a step is computed again, and with which exponents, does not depend on the split either, though what
// overflows has no meaning.
func TestRaiseIsIndependentOfOrderAndSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for round := range 60 {
		b := NewBlocks(shapes[round%len(shapes)])
		grads := gradients(r, b, 1+r.IntN(16))
		exponents := make([]int32, b.Count())
		for i := range exponents {
			exponents[i] = MinExponent + r.Int32N(40)
		}
		s, o := b.summed(grads, exponents), b.scattered(r, grads, exponents)
		one, other := slices.Clone(exponents), slices.Clone(exponents)
		if first := b.Raise(one, s.bounds); first != b.Raise(other, o.bounds) || !slices.Equal(one, other) {
			t.Fatalf("another split asks for other exponents")
		}
		for i, x := range one {
			if raised := s.bounds[i] > math.MaxInt32; raised != (x > exponents[i]) {
				t.Fatalf("block %d: bound %d, exponent %d after %d", i, s.bounds[i], x, exponents[i])
			}
		}
	}
}

// From every exponent that a step may leave, a step is computed again twice at most, for gradients far beyond any use,
// with thousands of micro-batches too.
func TestTwiceAtMost(t *testing.T) {
	b := NewBlocks([]int{3})
	for _, v := range []int{1, 8, 128, 4096} {
		stride := 1 + v/64
		for x := MinExponent; x <= 40; x += stride {
			for size := -149; size <= 16; size += stride {
				grads := make([][]float32, v)
				for i := range grads {
					grads[i] = []float32{0, float32(math.Ldexp(-1, size)), 0}
				}
				s, exponents, again := b.step(grads, []int32{int32(x)})
				if again > 2 || b.Check(exponents) != nil || s.bounds[0] > math.MaxInt32 {
					t.Fatalf("%d gradients of 2^%d from exponent %d: computed again %d times", v, size, x, again)
				}
				if x > 0 || again == 0 {
					continue
				}
				if bits := len(fmt.Sprintf("%b", s.bounds[0])); bits < sumBits-margin-1 {
					t.Fatalf("%d gradients of 2^%d from exponent %d: only %d bits of the sum are used", v, size, x,
						bits)
				}
			}
		}
	}
}

// Adversarial blocks: what a step makes of them, from the first exponents on.
func TestAdversarialBlocks(t *testing.T) {
	b := NewBlocks([]int{300})
	fill := func(f func(i int) float32) [][]float32 {
		g := make([]float32, 300)
		for i := range g {
			g[i] = f(i)
		}
		return [][]float32{g, g, g}
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	for name, c := range map[string]struct {
		grad  func(i int) float32
		again int
		bad   int
	}{
		"zeros":                 {func(int) float32 { return 0 }, 0, -1},
		"negative zeros":        {func(int) float32 { return float32(math.Copysign(0, -1)) }, 0, -1},
		"subnormals":            {func(i int) float32 { return math.Float32frombits(uint32(i)) }, 0, -1},
		"one huge among tiny":   {func(i int) float32 { return []float32{1e-12, 1e5}[i/299] }, 1, -1},
		"huge, and its block":   {func(i int) float32 { return float32(i-150) * 1e7 }, 2, -1},
		"all signs, all powers": {func(i int) float32 { return float32(math.Ldexp(float64(1-i%2*2), i%60-50)) }, 1, -1},
		"a NaN":                 {func(i int) float32 { return []float32{1, nan}[i/277%2] }, 0, 277},
		"infinity":              {func(i int) float32 { return []float32{1, inf}[i%100/99] }, 0, 99},
		"NaN in the last":       {func(i int) float32 { return []float32{1e30, nan}[i/299] }, 0, 299},
	} {
		grads := fill(c.grad)
		s, exponents, again := b.step(grads, make([]int32, b.Count()))
		if again != c.again || s.bad != c.bad {
			t.Errorf("%s: computed again %d times, element %d is bad: expected %d, %d", name, again, s.bad, c.again,
				c.bad)
		}
		if s.bad < 0 {
			checkSum(t, b, grads, exponents, s, 48)
		}
	}
	if s := b.summed(fill(func(int) float32 { return math.MaxFloat32 }), make([]int32, 2)); s.bounds[0] != 3*Limit(3) {
		t.Errorf("the largest float32 has bound %d: expected the limit", s.bounds[0])
	}
}

// A gradient that doubles each step, or shrinks, is computed again only where it first outgrows its exponent: the
// margin is free after each step.
func TestGrowthCostsNoRepetition(t *testing.T) {
	b := NewBlocks([]int{256})
	exponents, repeated := []int32{0}, 0
	size := -30.0
	for step := range int64(200) {
		size += []float64{1, 1, -1, -1}[step/50]
		g := make([]float32, 256)
		for i := range g {
			g[i] = float32(math.Exp2(size) * float64(i-128) / 128)
		}
		s, taken, again := b.step([][]float32{g, g, g, g}, exponents)
		repeated += again
		b.Next(taken, s.bounds, step)
		exponents = taken
		if err := b.Check(exponents); err != nil {
			t.Fatal(err)
		}
	}
	if repeated != 0 {
		t.Errorf("%d steps were computed again", repeated)
	}
}

// TestNext: the rule, case by case.
func TestNext(t *testing.T) {
	const full = 1<<(sumBits-margin) - 1 // the largest bound that leaves the margin
	for _, c := range []struct {
		name      string
		exponents []int32
		bounds    []int64
		step      int64
		want      []int32
	}{
		{"as before", []int32{5}, []int64{full}, 0, []int32{5}},
		{"one more", []int32{5}, []int64{full + 1}, 0, []int32{6}},
		{"as large as a sum can be", []int32{5}, []int64{math.MaxInt32}, 0, []int32{5 + margin}},
		{"less, not yet", []int32{5}, []int64{1}, 0, []int32{5}},
		{"less, now", []int32{5}, []int64{1}, fallEvery - 1, []int32{4}},
		{"half, now", []int32{5}, []int64{full / 2}, fallEvery - 1, []int32{4}},
		{"more than half", []int32{5}, []int64{full/2 + 1}, fallEvery - 1, []int32{5}},
		{"nothing", []int32{5}, []int64{0}, fallEvery - 1, []int32{5}},
		{"the smallest", []int32{MinExponent}, []int64{1}, fallEvery - 1, []int32{MinExponent}},
		{"the largest", []int32{MaxExponent}, []int64{math.MaxInt32}, 0, []int32{MaxExponent}},
		{"of one tensor", []int32{30, 0}, []int64{full, 0}, 0, []int32{30, 30 - spread}},
		{"of one tensor that shrinks", []int32{30, 30 - spread}, []int64{1, full}, fallEvery - 1,
			[]int32{29, 30 - spread}},
	} {
		elements := []int{BlockSize * len(c.exponents), 1} // the second tensor has no part in it
		b := NewBlocks(elements)
		got := append(slices.Clone(c.exponents), 0)
		if b.Next(got, append(slices.Clone(c.bounds), 0), c.step); !slices.Equal(got, append(c.want, 0)) {
			t.Errorf("%s: %d, expected %d", c.name, got, append(c.want, 0))
		}
	}
}

func TestCheck(t *testing.T) {
	b := NewBlocks([]int{300, 2})
	for _, c := range []struct {
		exponents []int32
		ok        bool
	}{{[]int32{0, 0, 0}, true}, {[]int32{MinExponent, MaxExponent, 0}, true}, {nil, false}, {[]int32{0, 0}, false},
		{[]int32{0, 0, MinExponent - 1}, false}, {[]int32{MaxExponent + 1, 0, 0}, false},
		{[]int32{math.MinInt32, 0, 0}, false}} {
		if err := b.Check(c.exponents); (err == nil) != c.ok {
			t.Errorf("%v: %v", c.exponents, err)
		}
	}
}

// FuzzStep gives a step any bits, of which some have to be computed again, and compares with arbitrary precision.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 191}, uint8(2), int32(0), uint8(0))
	f.Add([]byte{255, 255, 127, 127, 1, 0, 0, 0}, uint8(1), int32(9), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, v uint8, exponent int32, shape uint8) {
		b := NewBlocks(shapes[int(shape)%len(shapes)])
		n := b.blocks[len(b.blocks)-1].hi
		grads := make([][]float32, 1+v%5)
		for i := range grads {
			grads[i] = make([]float32, n)
			for j := 0; j < n && len(data) >= 4; j++ {
				grads[i][j] = math.Float32frombits(binary.LittleEndian.Uint32(data))
				data = data[4:]
			}
		}
		exponents := make([]int32, b.Count())
		for i := range exponents {
			exponents[i] = MinExponent + int32(uint32(exponent)%uint32(MaxExponent-MinExponent+1))
		}
		s, exponents, _ := b.step(grads, exponents)
		bad := slices.ContainsFunc(grads, func(g []float32) bool {
			return slices.ContainsFunc(g, func(x float32) bool { return !finite(float64(x)) })
		})
		if bad != (s.bad >= 0) {
			t.Fatalf("element %d is bad: expected %t", s.bad, bad)
		}
		if bad {
			return
		}
		checkSum(t, b, grads, exponents, s, 1)
		if b.Next(exponents, s.bounds, 15); b.Check(exponents) != nil {
			t.Fatal(b.Check(exponents))
		}
	})
}

func TestNothingIsAllocated(t *testing.T) {
	b := NewBlocks([]int{1000, 77})
	grads := gradients(rand.New(rand.NewPCG(5, 5)), b, 1)
	s, exponents, _ := b.step(grads, make([]int32, b.Count()))
	mean := make([]float32, 1077)
	if n := testing.AllocsPerRun(10, func() {
		b.Accumulate(s.sum, s.bounds, grads[0], exponents, 8)
		b.Raise(exponents, s.bounds)
		b.Mean(mean, s.sum, exponents, 128)
		b.Next(exponents, s.bounds, 0)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// 110,986 elements: the gradient of the built-in CNN.
func BenchmarkExact(b *testing.B) {
	const n = 110986
	blocks := NewBlocks([]int{n})
	grad, mean := make([]float32, n), make([]float32, n)
	for i := range grad {
		grad[i] = float32(rand.NormFloat64())
	}
	s, exponents, _ := blocks.step([][]float32{grad}, make([]int32, blocks.Count()))
	for name, f := range map[string]func(){
		"accumulate": func() { blocks.Accumulate(s.sum, s.bounds, grad, exponents, 8) },
		"mean":       func() { blocks.Mean(mean, s.sum, exponents, 128) },
		"next":       func() { blocks.Next(exponents, s.bounds, 0) },
	} {
		b.Run(fmt.Sprintf("%s/n=%d", name, n), func(b *testing.B) {
			for b.Loop() {
				f()
			}
		})
	}
}
