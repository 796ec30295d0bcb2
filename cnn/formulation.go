package cnn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// A formulation is how the operations are put to a backend: the same function
// of the same parameters, arranged as that backend computes it fastest.
type formulation struct {
	im2col bool // convolution as one matrix product
}

// conv is a 3x3 convolution without padding: [n, h, w, in] and [3, 3, in, out]
// give [n, h-2, w-2, out].
func (f formulation) conv(x, kernel *Node) *Node {
	if !f.im2col {
		return Convolve(x, kernel).NoPadding().Done()
	}
	// The "go" backend has a fast matrix product but a naive convolution: lay
	// the nine neighbours of each pixel side by side and multiply once.
	d, k := x.Shape().Dimensions, kernel.Shape().Dimensions
	h, w := d[1]-2, d[2]-2
	var taps []*Node
	for i := range 3 {
		for j := range 3 {
			taps = append(taps, Slice(x, AxisRange(), AxisRange(i, i+h), AxisRange(j, j+w), AxisRange()))
		}
	}
	columns := Reshape(Concatenate(taps, 3), d[0]*h*w, 9*d[3])
	return Reshape(Dot(columns, Reshape(kernel, 9*d[3], k[3])).Product(), d[0], h, w, k[3])
}
