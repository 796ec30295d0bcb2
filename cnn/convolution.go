package cnn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// conv is a 3x3 convolution without padding: [n, h, w, in] and [3, 3, in, out]
// give [n, h-2, w-2, out]. With im2col it is one matrix product: the "go"
// backend has a fast product but a naive convolution.
func conv(x, kernel *Node, im2col bool) *Node {
	if !im2col {
		return Convolve(x, kernel).NoPadding().Done()
	}
	d, k := x.Shape().Dimensions, kernel.Shape().Dimensions
	h, w := d[1]-2, d[2]-2
	var taps []*Node // the nine neighbours of each pixel, side by side
	for i := range 3 {
		for j := range 3 {
			taps = append(taps, Slice(x, AxisRange(), AxisRange(i, i+h), AxisRange(j, j+w), AxisRange()))
		}
	}
	columns := Reshape(Concatenate(taps, 3), d[0]*h*w, 9*d[3])
	return Reshape(Dot(columns, Reshape(kernel, 9*d[3], k[3])).Product(), d[0], h, w, k[3])
}

// convInWindows is the same convolution with the output cut into 2x2 windows:
// [n, h, w, in] gives top left, top right, bottom left and bottom right of each
// window, [n, (h-2)/2, (w-2)/2, out] each, ready for a max-pool.
//
// It is Winograd's F(2x2, 3x3) (Lavin and Gray 2015): a window is
//
//	A' [ (G kernel G') . (B' patch B) ] A
//
// for its 4x4 patch of x, where . multiplies element by element and sums over
// channels: 16 products instead of 36. Each of the 16 is one matrix product over
// all windows. They stay separate two-dimensional products: stacked into a
// batched one, XLA takes a slower path. Backward it is 16 products again, since
// the gradient of linear maps is their transpose.
func convInWindows(x, kernel *Node) (topLeft, topRight, bottomLeft, bottomRight *Node) {
	d, k := x.Shape().Dimensions, kernel.Shape().Dimensions
	n, h, w, in, out := d[0], (d[1]-2)/2, (d[2]-2)/2, k[2], k[3]

	// patch[i][j]: element (i, j) of every window's patch. Patches overlap by
	// two, so with x cut into 2x2 blocks, it lies in block (i/2, j/2) from it.
	blocks := Reshape(x, n, h+1, 2, w+1, 2, in)
	patch := grid(4, func(i, j int) *Node {
		return Reshape(Slice(blocks, AxisRange(), AxisRange(i/2, i/2+h), AxisElem(i%2), AxisRange(j/2, j/2+w), AxisElem(j%2), AxisRange()), n*h*w, in)
	})
	patch = bothWays(patch, func(x []*Node) []*Node { // B'
		return []*Node{Sub(x[0], x[2]), Add(x[1], x[2]), Sub(x[2], x[1]), Sub(x[1], x[3])}
	})
	taps := Dot(Const(x.Graph(), tapMap()), Reshape(kernel, 9, in*out)).Product() // G kernel G'
	products := grid(4, func(i, j int) *Node {
		tap := Reshape(Slice(taps, AxisElem(4*i+j)), in, out)
		return Dot(patch[i][j], tap).Product()
	})
	y := bothWays(products, func(x []*Node) []*Node { // A'
		return []*Node{Add(Add(x[0], x[1]), x[2]), Sub(Sub(x[1], x[2]), x[3])}
	})
	y = grid(2, func(i, j int) *Node { return Reshape(y[i][j], n, h, w, out) })
	return y[0][0], y[0][1], y[1][0], y[1][1]
}

// tapMap is kernel -> G kernel G' as a matrix from 9 to 16 elements.
func tapMap() [][]float32 {
	g := [4][3]float32{{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}}
	m := make([][]float32, 16)
	for row := range m {
		m[row] = make([]float32, 9)
		for column := range m[row] {
			m[row][column] = g[row/4][column/3] * g[row%4][column%3]
		}
	}
	return m
}

func grid(size int, at func(i, j int) *Node) [][]*Node {
	rows := make([][]*Node, size)
	for i := range rows {
		for j := range size {
			rows[i] = append(rows[i], at(i, j))
		}
	}
	return rows
}

// bothWays applies a linear map to the columns, then to the rows, of a grid: M X M'.
func bothWays(x [][]*Node, m func([]*Node) []*Node) [][]*Node {
	transposed := func(x [][]*Node) [][]*Node {
		t := make([][]*Node, len(x[0]))
		for j := range t {
			for i := range x {
				t[j] = append(t[j], x[i][j])
			}
		}
		return t
	}
	mapped := func(x [][]*Node) [][]*Node {
		var y [][]*Node
		for _, row := range x {
			y = append(y, m(row))
		}
		return y
	}
	return mapped(transposed(mapped(transposed(x))))
}
