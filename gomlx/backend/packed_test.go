//go:build amd64 && goexperiment.simd

package backend

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"simd/archsimd"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// TestProductsAddUpInOneOrder compares products of the backend "go" with the order that its kernels for AVX2 and for
// AVX-512 have in common, bit by bit: with the widest vectors of this processor, and with AVX2.
func TestProductsAddUpInOneOrder(t *testing.T) {
	if !archsimd.X86.AVX2() || !archsimd.X86.FMA() {
		t.Skip("this processor has no AVX2 or no FMA")
	}
	const variable = "GOMLX_SIMD_AVX512"
	if os.Getenv(variable) == "" {
		inChild(t, variable+"=false") // with AVX2 only
	}
	b, _, _, err := Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	for _, size := range [][4]int{ // matrices, rows, terms, columns
		{1, 1, 1, 1}, {1, 1, 129, 1}, {1, 10, 10, 10}, {2, 10, 288, 16}, {2, 7, 257, 33}, {3, 5, 20, 50},
		{1, 64, 32, 100},
	} {
		for _, transposed := range []bool{false, true} {
			t.Run(fmt.Sprint(size, transposed), func(t *testing.T) { checkProduct(t, b, size, transposed) })
		}
	}
}

func checkProduct(t *testing.T, b compute.Backend, size [4]int, transposed bool) {
	v, m, k, n := size[0], size[1], size[2], size[3]
	right, axis := []int{v, k, n}, 1
	if transposed {
		right, axis = []int{v, n, k}, 2
	}
	p, err := Compile(b, "product", []shapes.Shape{shapes.Make(dtypes.Float32, v, m, k),
		shapes.Make(dtypes.Float32, right...)}, func(in []*graph.Node) []*graph.Node {
		return []*graph.Node{graph.DotGeneral(in[0], []int{2}, []int{0}, in[1], []int{axis}, []int{0})}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	random := rand.New(rand.NewPCG(1, uint64(m*n*k)))
	fill := func(size int) []float32 {
		x := make([]float32, size)
		for i := range x {
			x[i] = float32(random.NormFloat64())
		}
		return x
	}
	x, y, got := fill(v*m*k), fill(v*k*n), make([]float32, v*m*n)
	if err := p.Run([]any{got}, []any{x, y}); err != nil {
		t.Fatal(err)
	}
	for i := range got {
		matrix, row, column := i/(m*n), i/n%m, i%n
		want := panels(k, func(term int) (float32, float32) {
			at := matrix*k*n + term*n + column
			if transposed {
				at = matrix*k*n + column*k + term
			}
			return x[matrix*m*k+row*k+term], y[at]
		})
		if got[i] != want {
			t.Fatalf("element %d: %v, expected %v", i, got[i], want)
		}
	}
}

// panels adds up products of two factors as package backend's packed describes.
func panels(terms int, factors func(term int) (float32, float32)) (sum float32) {
	for first := 0; first < terms; first += 128 {
		var panel float32
		for term := first; term < min(first+128, terms); term++ {
			a, b := factors(term)
			exact := new(big.Float).SetPrec(500).SetFloat64(float64(a) * float64(b)) // a float64 holds that product
			panel, _ = exact.Add(exact, big.NewFloat(float64(panel))).Float32()
		}
		if first == 0 {
			sum = panel
		} else {
			sum += panel
		}
	}
	return sum
}
