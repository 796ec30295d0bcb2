package cnn

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Adam's constants, as in Keras; Muon shares the first and the last.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-7
)

// Muon's polynomial, and how often it is applied.
const (
	muonA, muonB, muonC = 3.4445, -4.7750, 2.0315
	muonRounds          = 5
)

// optimize is one update of [n] parameters and their moments by a mean gradient: Adam's, or with muon Muon's for the
// kernels and Adam's for the biases (the kernels' second moments then only keep the state's layout the same). moment,
// rate and keep are the recipe's factors. Weight decay is separate from the moments (AdamW); a keep of 1 changes no
// bit.
func optimize(muon bool, params, m, v, gradient, moment, rate, keep *Node) []*Node {
	m = Add(MulScalar(m, beta1), MulScalar(gradient, 1-beta1))
	v = Add(MulScalar(v, beta2), MulScalar(Square(gradient), 1-beta2))
	step := Div(Mul(moment, m), AddScalar(Sqrt(v), epsilon))
	if muon {
		ahead := Add(MulScalar(m, beta1), MulScalar(gradient, 1-beta1)) // Nesterov's momentum
		var parts []*Node
		for _, t := range parameters(classesOf(params.Shape().Size())) {
			within := AxisRange(t.Offset, t.Offset+t.Size())
			part := Slice(step, within)
			if len(t.Shape) > 1 {
				out := t.Shape[len(t.Shape)-1]
				in := t.Size() / out
				part = Reshape(orthogonal(Reshape(Slice(ahead, within), in, out)), t.Size())
				part = Mul(MulScalar(rate, math.Sqrt(max(1, float64(out)/float64(in)))), part)
			}
			parts = append(parts, part)
		}
		step = Concatenate(parts, 0)
	}
	return []*Node{Sub(Mul(params, keep), step), m, v}
}

// orthogonal brings all singular values of a matrix near 1 and keeps its singular vectors: rare directions of the
// gradient move the weights about as far as frequent ones. The iteration and its coefficients are Muon's (K. Jordan and
// others, 2024): after its rounds of X <- (aI + bXX' + cXX'XX')X, a value that was above 0.002 of the norm is between
// 0.68 and 1.21. The rounds use the smaller Gram matrix (XX', or X'X), with which the polynomials commute: only that
// matrix and the last product involve the large side. It needs all of float32's bits: an error of the Gram matrix grows
// about twelvefold a round.
func orthogonal(x *Node) *Node {
	rows, columns := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	x = Div(x, AddScalar(Sqrt(sumAll(Square(x))), epsilon))
	gram := gram(x)
	identity := DiagonalWithValue(ScalarOne(x.Graph(), x.DType()), min(rows, columns))
	all := identity
	for range muonRounds {
		p := Add(MulScalar(identity, muonA), Add(MulScalar(gram, muonB), MulScalar(product(gram, gram), muonC)))
		all, gram = product(p, all), product(product(p, gram), p)
	}
	if rows > columns {
		return product(x, all)
	}
	return product(all, x)
}

func vector(n int) shapes.Shape { return shapes.Make(dtypes.Float32, n) }

func scalar(t dtypes.DType) shapes.Shape { return shapes.Make(t) }
