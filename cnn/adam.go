package cnn

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Adam's constants, as in Keras.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-7
)

// adam is one update of [n] parameters and their moments by a mean gradient;
// moment and keep are the recipe's factors. Weight decay is apart from the
// moments (AdamW); a keep of 1 changes no bit.
func adam(params, m, v, gradient, moment, keep *Node) []*Node {
	m = Add(MulScalar(m, beta1), MulScalar(gradient, 1-beta1))
	v = Add(MulScalar(v, beta2), MulScalar(Square(gradient), 1-beta2))
	step := Div(Mul(moment, m), AddScalar(Sqrt(v), epsilon))
	return []*Node{Sub(Mul(params, keep), step), m, v}
}

func vector(n int) shapes.Shape { return shapes.Make(dtypes.Float32, n) }

func scalar(t dtypes.DType) shapes.Shape { return shapes.Make(t) }
