package exact

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// oracle returns x * 2^places, rounded to nearest even, in arbitrary precision.
func oracle(x float64, places int) *big.Int {
	scaled := new(big.Rat).SetFloat64(x)
	power := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(places, -places))))
	if places < 0 {
		power.Inv(power)
	}
	scaled.Mul(scaled, power)
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
	want := finite(x) && oracle(x, ScaleBits).CmpAbs(big.NewInt(1<<62)) <= 0
	if ok != want || !ok && q != 0 || ok && big.NewInt(q).Cmp(oracle(x, ScaleBits)) != 0 {
		t.Fatalf("Quantise(%g) = %d, %t", x, q, ok)
	}
	if ok && math.Abs(Value(q)-x) > 0.5/scale {
		t.Fatalf("Value(Quantise(%g)) = %g", x, Value(q))
	}
}

func FuzzQuantise(f *testing.F) {
	for _, x := range []float64{0, math.Copysign(0, -1), 1, -1, 0.5 / scale, 1.5 / scale, 2.5 / scale, -0.5 / scale,
		1 << 22, -1 << 22,
		math.Nextafter(1<<22, 1e9), math.Inf(1), math.NaN(), math.MaxFloat64, math.SmallestNonzeroFloat64, 0x1p19} {
		f.Add(x)
	}
	f.Fuzz(func(t *testing.T, x float64) { checkQuantise(t, x) })
}

func TestQuantiseRandomBits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50000 {
		checkQuantise(t, float64(math.Float32frombits(r.Uint32())))
		checkQuantise(t, r.NormFloat64()*math.Exp2(float64(20-r.IntN(60))))
	}
}
