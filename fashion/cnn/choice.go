package cnn

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Choices between values by a condition, in two forms with the same results. XLA fuses a Where into the loops beside
// it. The backend "go" runs a loop for each operation, and Where's has a branch for each element: half of a network's
// values are mispredicted, which takes five times as long as to multiply by 1 or 0.

// unfused reports whether a value is computed by the backend "go".
func unfused(x *Node) bool { return x.Graph().Backend().String() == "go" }

// where gives x where the condition holds, and 0 elsewhere.
func where(condition, x *Node) *Node {
	if unfused(x) {
		return Mul(ones(condition), x)
	}
	return Where(condition, x, ZerosLike(x))
}

// ones gives 1 where the condition holds, and 0 elsewhere. A bool is a byte of 0 or 1, and to convert a byte takes no
// branch.
func ones(condition *Node) *Node {
	return ConvertDType(Bitcast(condition, dtypes.Uint8), dtypes.Float32)
}

// relu gives the positive elements, 0 for the others, and where its gradient passes. It passes none at exactly 0, as in
// Keras and PyTorch (the gradient of Max would): fresh biases are 0 and so is the background of the images.
func relu(x *Node) (output, passes *Node) {
	passes = IsPositive(x)
	output = where(passes, x)
	if unfused(x) {
		return output, passes // computed once
	}
	return output, IsPositive(output) // of what is in memory
}

// A pool is the 2x2 max-pool of a wideConvolution's output. The largest of four gets all of the gradient: the first of
// equal ones, as in Keras and PyTorch.
type pool struct {
	output *Node // [4, 64, m]: window of a tile, channel, tile and image
	first  *Node // the index of the largest
	// instead, if unfused: 1 where the first of a pair wins: 0 over 1, 2 over 3, one of 0 and 1 over both
	wins [3]*Node
}

func maxPool(c wideConvolution) pool {
	window := func(w int) *Node { return Slice(c.output, AxisRange(4*w, 4*w+4)) }
	w0, w1, w2, w3 := window(0), window(1), window(2), window(3)
	left, right := Max(w0, w1), Max(w2, w3)
	p := pool{output: Max(left, right)}
	if unfused(c.output) {
		p.wins = [3]*Node{ones(GreaterOrEqual(w0, w1)), ones(GreaterOrEqual(w2, w3)),
			ones(GreaterOrEqual(left, right))}
		return p
	}
	index := func(i float32) *Node { return Const(c.output.Graph(), i) }
	p.first = Where(GreaterOrEqual(w0, Max(w1, right)), index(0),
		Where(GreaterOrEqual(w1, right), index(1), Where(GreaterOrEqual(w2, w3), index(2), index(3))))
	return p
}

// back gives the gradient with respect to the convolution's output.
func (p *pool) back(d *Node) *Node {
	if unfused(d) {
		left := Mul(p.wins[2], d)
		right := Sub(d, left)
		w0, w2 := Mul(p.wins[0], left), Mul(p.wins[1], right)
		d = Concatenate([]*Node{w0, Sub(left, w0), w2, Sub(right, w2)}, 0)
		return Reshape(d, tile*tile, filters2, -1)
	}
	d, first := repeated(d, 4), repeated(p.first, 4)
	d = where(Equal(first, Iota(d.Graph(), first.Shape(), 0)), d)
	return Reshape(d, tile*tile, filters2, -1)
}
