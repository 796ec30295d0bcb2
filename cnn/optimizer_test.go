package cnn

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// TestMuonAgreesWithNaiveArithmetic: kernels move as matrix products in float64
// say, whatever the scale of their gradients; biases move as Adam's.
func TestMuonAgreesWithNaiveArithmetic(t *testing.T) {
	for _, backend := range []string{"go", "xla"} {
		t.Run(backend, func(t *testing.T) {
			m := open(t, Options{Backend: backend, MicroBatch: 4, Recipe: "augment", TotalSteps: 100})
			for _, scale := range []float64{1, 1e-3} {
				muonAgrees(t, m, scale)
			}
		})
	}
}

func muonAgrees(t *testing.T, m *Model, scale float64) {
	const p, step = NumParameters, 30
	before := slices.Concat(scaled(unit(1, p), 0.5, 0.125), scaled(unit(2, p), 0.5, scale/512), scaled(unit(3, p), 0, scale*scale/(1<<18)))
	if err := m.SetState(before); err != nil {
		t.Fatal(err)
	}
	gradient := scaled(unit(6, p), 0.5, scale/256)
	for i := range gradient[:p/2] { // one direction towers above the others
		gradient[i] += float32(scale) / 16
	}
	if err := m.Update(gradient, step); err != nil {
		t.Fatal(err)
	}
	moment, rate, keep := m.recipe.factors(step, 100)
	for _, tensor := range parameters() {
		change := make([]float64, tensor.Size()) // expected, without weight decay
		first := make([]float64, tensor.Size())
		for i := range change {
			at := tensor.Offset + i
			g := float64(gradient[at])
			mean := beta1*float64(before[p+at]) + (1-beta1)*g
			square := beta2*float64(before[2*p+at]) + (1-beta2)*g*g
			first[i] = beta1*mean + (1-beta1)*g
			change[i] = float64(moment) * mean / (math.Sqrt(square) + epsilon)
		}
		if len(tensor.Shape) > 1 {
			out := tensor.Shape[len(tensor.Shape)-1]
			in := tensor.Size() / out
			change = naiveOrthogonal(first, in, out)
			for i := range change {
				change[i] *= float64(rate) * math.Sqrt(max(1, float64(out)/float64(in)))
			}
		}
		var wrong, size float64
		for i, want := range change {
			at := tensor.Offset + i
			got := float64(before[at])*float64(keep) - float64(m.State()[at])
			wrong += (got - want) * (got - want)
			size += want * want
		}
		if !(wrong < 1e-6*size) {
			t.Errorf("gradients times %g: %s moves by %g, off by %g", scale, tensor.Name, math.Sqrt(size), math.Sqrt(wrong))
		}
	}
}

// naiveOrthogonal iterates on the smaller Gram matrix of x [in, out], row-major.
func naiveOrthogonal(x []float64, in, out int) []float64 {
	norm := 0.0
	for _, v := range x {
		norm += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / (math.Sqrt(norm) + epsilon)
	}
	if in < out {
		return transpose(iterate(transpose(y, in, out), out, in), out, in)
	}
	return iterate(y, in, out)
}

func iterate(y []float64, rows, columns int) []float64 {
	for range 5 {
		gram := product(transpose(y, rows, columns), y, columns, rows, columns)
		square := product(gram, gram, columns, columns, columns)
		for i := range gram {
			gram[i] = -4.7750*gram[i] + 2.0315*square[i]
		}
		for i, v := range product(y, gram, rows, columns, columns) {
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

func product(a, b []float64, rows, inner, columns int) []float64 {
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

// TestMuonTurnsAnyKernelByAsMuch: all singular values of a step are near the rate, which shows in its Gram matrix.
func TestMuonTurnsAnyKernelByAsMuch(t *testing.T) {
	for _, size := range [][2]int{{9, 32}, {288, 64}, {1000, 10}} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			in, out := size[0], size[1]
			x := make([]float64, in*out)
			for i, u := range unit(7, len(x)) {
				x[i] = u - 0.5
			}
			y := naiveOrthogonal(x, in, out)
			if in < out {
				y, in, out = transpose(y, in, out), out, in
			}
			gram := product(transpose(y, in, out), y, out, in, out)
			v := make([]float64, out)
			for i, u := range unit(8, out) {
				v[i] = u
			}
			largest := 0.0
			for range 200 { // power iteration
				v = product(gram, v, out, out, 1)
				largest = 0
				for _, a := range v {
					largest = math.Hypot(largest, a)
				}
				for i := range v {
					v[i] /= largest
				}
			}
			if largest > 1.21*1.21 {
				t.Errorf("largest singular value %g", math.Sqrt(largest))
			}
			trace := 0.0
			for i := range out {
				trace += gram[i*out+i]
			}
			if trace < 0.6*float64(out) || trace > 1.3*float64(out) {
				t.Errorf("mean square of the singular values %g", trace/float64(out))
			}
		})
	}
}
