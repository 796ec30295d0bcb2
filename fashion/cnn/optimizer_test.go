package cnn

import (
	"math"
	"slices"
	"testing"
)

// TestMuonAgreesWithNaiveArithmetic: kernels move as matrix products in float64 say, whatever the scale of their
// gradients; biases move as Adam's.
func TestMuonAgreesWithNaiveArithmetic(t *testing.T) {
	for _, backend := range []string{"go", "xla"} {
		t.Run(backend, func(t *testing.T) {
			m := open(t, Options{Backend: backend, MicroBatch: 4, Recipe: "augment", TotalSteps: 100})
			for _, scale := range []float64{1, 1e-3, 0} {
				muonAgrees(t, m, scale)
			}
		})
	}
}

func muonAgrees(t *testing.T, m *Model, scale float64) {
	const step = 30
	p := numParameters(classes)
	before := slices.Concat(scaled(unit(1, p), 0.5, 0.125), scaled(unit(2, p), 0.5, scale/512),
		scaled(unit(3, p), 0, scale*scale/(1<<18)))
	gradient := scaled(unit(6, p), 0.5, scale/256)
	for i := range gradient[:p/2] { // one direction towers above the others
		gradient[i] += float32(scale) / 4
	}
	update := func() []float32 {
		m.setState(before)
		if err := m.Update(m.split(gradient), step); err != nil {
			t.Fatal(err)
		}
		return slices.Clone(m.state)
	}
	after := update()
	if !slices.Equal(after, update()) {
		t.Errorf("gradients times %g: the same update gave other bits", scale)
	}

	r := m.recipe
	rate := r.LearningRate * (1 - (step+0.5)/100) / (1 - r.WarmUp)
	correction := math.Sqrt(1-math.Pow(beta2, step+1)) / (1 - math.Pow(beta1, step+1))
	means, squares := make([]float64, p), make([]float64, p)
	for i, g := range gradient {
		means[i] = beta1*float64(before[p+i]) + (1-beta1)*float64(g)
		squares[i] = beta2*float64(before[2*p+i]) + (1-beta2)*float64(g)*float64(g)
	}
	for _, tensor := range parameters(classes) {
		size, out := tensor.Size(), tensor.Shape[len(tensor.Shape)-1]
		in := size / out
		want := make([]float64, size)
		for i := range want {
			at := tensor.Offset + i
			if len(tensor.Shape) == 1 {
				want[i] = rate * correction * means[at] / (math.Sqrt(squares[at]) + epsilon)
			} else {
				want[i] = beta1*means[at] + (1-beta1)*float64(gradient[at])
			}
		}
		if len(tensor.Shape) > 1 {
			want = naiveOrthogonal(want, in, out)
			for i := range want {
				want[i] *= rate * math.Sqrt(max(1, float64(out)/float64(in)))
			}
		}
		change := make([]float64, size)
		for i := range change {
			at := tensor.Offset + i
			change[i] = float64(before[at])*(1-rate*r.WeightDecay) - float64(after[at])
		}
		near(t, tensor.Name, scale, change, want, 1e-2)
		near(t, "first moment of "+tensor.Name, scale, wide(after[p+tensor.Offset:][:size]),
			means[tensor.Offset:][:size], 1e-6)
		near(t, "second moment of "+tensor.Name, scale, wide(after[2*p+tensor.Offset:][:size]),
			squares[tensor.Offset:][:size], 1e-6)
	}
}

// near compares up to a share of the wanted values' norm, and to what float32 weights of up to 0.0625 can hold.
func near(t *testing.T, what string, scale float64, got, want []float64, share float64) {
	t.Helper()
	var wrong, size float64
	for i := range want {
		wrong += (got[i] - want[i]) * (got[i] - want[i])
		size += want[i] * want[i]
	}
	if wrong, size = math.Sqrt(wrong), math.Sqrt(size); !(wrong <= share*size+4e-9*math.Sqrt(float64(len(want)))) {
		t.Errorf("gradients times %g: %s is off by %g of %g", scale, what, wrong, size)
	}
}

func wide(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// naiveOrthogonal applies Muon's rounds to a matrix [in, out], row-major, one by one.
func naiveOrthogonal(x []float64, in, out int) []float64 {
	if in < out {
		return transpose(naiveOrthogonal(transpose(x, in, out), out, in), out, in)
	}
	norm := 0.0
	for _, v := range x {
		norm += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / (math.Sqrt(norm) + 1e-7)
	}
	for range 5 {
		gram := naiveProduct(transpose(y, in, out), y, out, in, out)
		p := naiveProduct(gram, gram, out, out, out)
		for i := range p {
			p[i] = -4.7750*gram[i] + 2.0315*p[i]
		}
		for i, v := range naiveProduct(y, p, in, out, out) {
			y[i] = 3.4445*y[i] + v
		}
	}
	return y
}

func transpose(x []float64, rows, columns int) []float64 {
	y := make([]float64, len(x))
	for i := range rows {
		for j := range columns {
			y[j*rows+i] = x[i*columns+j]
		}
	}
	return y
}

func naiveProduct(a, b []float64, rows, inner, columns int) []float64 {
	c := make([]float64, rows*columns)
	for i := range rows {
		for k := range inner {
			for j := range columns {
				c[i*columns+j] += a[i*inner+k] * b[k*columns+j]
			}
		}
	}
	return c
}

// TestMuonsPolynomialBringsValuesNearOne is the docstring's claim.
func TestMuonsPolynomialBringsValuesNearOne(t *testing.T) {
	for value := 0.002; value <= 1; value *= 1.001 {
		x := value
		for range muonRounds {
			x *= muonA + muonB*x*x + muonC*x*x*x*x
		}
		if x < 0.68 || x > 1.21 {
			t.Fatalf("%g becomes %g", value, x)
		}
	}
}
