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

// oracle returns x * 2^ScaleBits, rounded to nearest even, in arbitrary precision.
func oracle(x float64) *big.Int {
	scaled := new(big.Rat).SetFloat64(x)
	scaled.Mul(scaled, new(big.Rat).SetInt64(scale))
	twice := new(big.Int).Lsh(scaled.Num(), 1)
	// round half even = floor((2n + d) / 2d), less one if that was a tie and came out odd
	twice.Add(twice, scaled.Denom())
	q, rest := new(big.Int).DivMod(twice, new(big.Int).Lsh(scaled.Denom(), 1), new(big.Int))
	if rest.Sign() == 0 && q.Bit(0) == 1 {
		q.Sub(q, big.NewInt(1))
	}
	return q
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

func checkQuantise(t *testing.T, x float64) {
	t.Helper()
	q, ok := Quantise(x)
	want := finite(x) && oracle(x).CmpAbs(big.NewInt(1<<62)) <= 0
	if ok != want || !ok && q != 0 || ok && big.NewInt(q).Cmp(oracle(x)) != 0 {
		t.Fatalf("Quantise(%g) = %d, %t", x, q, ok)
	}
	if ok && math.Abs(Value(q)-x) > 0.5/scale {
		t.Fatalf("Value(Quantise(%g)) = %g", x, Value(q))
	}
}

// checkAccumulate compares one element with the oracle. Its place among zeros depends on its value, so that vector and
// plain code are both used.
func checkAccumulate(t *testing.T, g float32, v int) {
	t.Helper()
	ok := finite(float64(g)) && oracle(float64(g)).CmpAbs(big.NewInt(Limit(v))) < 0
	at := int(math.Float32bits(g) % 11)
	grad, dst, want := make([]float32, 11), make([]int64, 11), make([]int64, 11)
	for i := range dst {
		dst[i], want[i] = int64(i)-7, int64(i)-7
	}
	grad[at] = g
	if ok {
		want[at] += oracle(float64(g)).Int64()
	}
	switch bad := Accumulate(dst, grad, v); {
	case ok && (bad != -1 || !slices.Equal(dst, want)):
		t.Fatalf("Accumulate(%g at %d, v %d) = %d, %v: expected %v", g, at, v, bad, dst, want)
	case !ok && (bad != at || !slices.Equal(dst, want)):
		t.Fatalf("Accumulate(%g at %d, v %d) = %d, %v: expected a refusal that leaves nothing", g, at, v, bad, dst)
	}
}

func FuzzQuantise(f *testing.F) {
	for _, x := range []float64{0, math.Copysign(0, -1), 1, -1, 0.5 / scale, 1.5 / scale, 2.5 / scale, -0.5 / scale,
		1 << 22, -1 << 22,
		math.Nextafter(1<<22, 1e9), math.Inf(1), math.NaN(), math.MaxFloat64, math.SmallestNonzeroFloat64, 0x1p19,
		0x1.fffffep18, 2048, 2048.0001, -2048} {
		f.Add(x, uint8(8))
		f.Add(x, uint8(1))
	}
	f.Fuzz(func(t *testing.T, x float64, v uint8) {
		checkQuantise(t, x)
		checkAccumulate(t, float32(x), int(v)+1)
		checkAccumulate(t, math.Float32frombits(uint32(math.Float64bits(x))), int(v)+1)
	})
}

func TestQuantiseRandomBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50000 {
		checkAccumulate(t, math.Float32frombits(r.Uint32()), 1+r.IntN(100))
		checkQuantise(t, float64(math.Float32frombits(r.Uint32())))
		checkAccumulate(t, float32(r.NormFloat64()*math.Exp2(float64(-r.IntN(60)))), 8)
	}
}

// At the very edge: the largest accepted value, and the next one, for many V; and V of the largest cannot overflow.
func TestLimitIsExact(t *testing.T) {
	for _, v := range []int{1, 2, 3, 5, 7, 8, 100, 1000, 65536} {
		largest := math.Float32frombits(largestBits(v))
		for _, sign := range []float32{1, -1} {
			checkAccumulate(t, sign*largest, v)
			checkAccumulate(t, sign*math.Nextafter32(largest, math.MaxFloat32), v)
			sum := []int64{0}
			for range v {
				if Accumulate(sum, []float32{sign * largest}, v) != -1 {
					t.Fatalf("v %d: the largest value is refused", v)
				}
			}
			if (sum[0] > 0) != (sign > 0) || sum[0] > 1<<62 || sum[0] < -1<<62 {
				t.Fatalf("v %d: sum %d", v, sum[0])
			}
		}
	}
}

func TestAccumulateNamesTheFirstBadElement(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		grad []float32
		want int
	}{{nil, -1}, {[]float32{1, 2}, -1}, {[]float32{nan}, 0}, {[]float32{1, -inf, nan}, 1},
		{[]float32{1, 2, 1e9, inf}, 2}} {
		dst := []int64{1, 2, 3, 4, 5}
		bad := Accumulate(dst, c.grad, 8)
		if bad != c.want || bad >= 0 && !slices.Equal(dst, []int64{1, 2, 3, 4, 5}) {
			t.Errorf("Accumulate(%v) = %d, %v: expected %d", c.grad, bad, dst, c.want)
		}
	}
}

// The promise of the package: any order, any split into ranks and threads, any association gives the same bits.
func TestSumIsIndependentOfOrderAndSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	for range 200 {
		v, n := 1+r.IntN(16), 1+r.IntN(50)
		grads := make([][]float32, v)
		for i := range grads {
			grads[i] = make([]float32, n)
			for j := range grads[i] {
				grads[i][j] = float32(r.NormFloat64() * math.Exp2(float64(10-r.IntN(50))))
			}
		}
		want := make([]int64, n)
		for _, g := range grads {
			Accumulate(want, g, v)
		}
		for range 5 {
			parts := make([][]int64, 1+r.IntN(v))
			for i := range parts {
				parts[i] = make([]int64, n)
			}
			for _, i := range r.Perm(v) {
				Accumulate(parts[r.IntN(len(parts))], grads[i], v)
			}
			for len(parts) > 1 { // merge two at random, as threads and ring order may
				i := r.IntN(len(parts) - 1)
				Add(parts[i], parts[i+1])
				parts = slices.Delete(parts, i+1, i+2)
			}
			mean, wantMean := make([]float32, n), make([]float32, n)
			Mean(mean, parts[0], 128)
			Mean(wantMean, want, 128)
			if !slices.Equal(parts[0], want) || !slices.Equal(mean, wantMean) {
				t.Fatalf("v %d: another split gave other bits", v)
			}
		}
	}
}

// Mean agrees with its definition in arbitrary precision, one documented rounding at a time.
func TestMeanAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	round := func(x *big.Float, precision uint) *big.Float {
		return new(big.Float).SetPrec(precision).SetMode(big.ToNearestEven).Set(x)
	}
	for range 20000 {
		q := (r.Int64N(1<<62) >> r.IntN(62)) * (1 - 2*r.Int64N(2))
		weight := 1 + r.Int64N(1<<(1+r.IntN(52)))
		sum := round(new(big.Float).SetInt64(q), 53)
		divisor := new(big.Float).SetInt64(weight)
		divisor.SetMantExp(divisor, ScaleBits)
		quotient := new(big.Float).SetPrec(53).SetMode(big.ToNearestEven).Quo(sum, divisor)
		want, _ := quotient.Float32()
		dst := []float32{0}
		Mean(dst, []int64{q}, weight)
		if math.Float32bits(dst[0]) != math.Float32bits(want) {
			t.Fatalf("Mean(%d, %d) = %g, expected %g", q, weight, dst[0], want)
		}
	}
}

func FuzzAccumulateThenMean(f *testing.F) {
	f.Add([]byte{0, 0, 128, 63, 0, 0, 128, 191}, uint8(8))
	f.Fuzz(func(t *testing.T, b []byte, v uint8) {
		var grad []float32
		for ; len(b) >= 4; b = b[4:] {
			grad = append(grad, math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
		sum := make([]int64, len(grad))
		bad := Accumulate(sum, grad, int(v))
		mean := make([]float32, len(sum))
		Mean(mean, sum, 1)
		for i, m := range mean {
			if !finite(float64(m)) || bad >= 0 && m != 0 || bad < 0 && math.Abs(float64(m-grad[i])) > 1.0/scale {
				t.Fatalf("element %d: %g came out as %g (bad %d)", i, grad[i], m, bad)
			}
		}
	})
}

// 110,986 elements: the gradient of the built-in CNN.
func BenchmarkExact(b *testing.B) {
	const n = 110986
	grad, sum, mean := make([]float32, n), make([]int64, n), make([]float32, n)
	for i := range grad {
		grad[i] = float32(rand.NormFloat64())
	}
	for name, f := range map[string]func(){
		"accumulate": func() { Accumulate(sum, grad, 8) },
		"add":        func() { Add(sum, sum) },
		"mean":       func() { Mean(mean, sum, 128) },
	} {
		b.Run(fmt.Sprintf("%s/n=%d", name, n), func(b *testing.B) {
			for b.Loop() {
				f()
			}
		})
	}
}
