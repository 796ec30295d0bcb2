package cnn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// The second convolution gives 24x24 pixels, in 6x6 tiles of 4x4. A tile depends on a patch of 6x6 pixels, which
// overlaps its neighbours' by two. All patches of c channels and n images have the shape
//
//	[36, c, m]    position in the patch, channel, and which patch of which image
//
// with m = 6*6*n: the tile's row, its column, the image. So each product below is a plain row-major matrix product,
// which XLA computes at nearly the processor's peak, and each loop over elements reads memory in order.
const (
	tile      = 4
	tiles     = 6 // along each edge
	patch     = tile + 2
	positions = patch * patch

	filters1 = 32
	filters2 = 64
	taps     = 9 // of a 3x3 kernel
)

// A thinConvolution is the first layer, of one channel: a matrix product with the nine neighbours of each pixel as
// columns. A tenth, of ones, takes the bias. It computes its output as patches: a pixel of several patches is computed
// more than once, which is cheaper than gathering patches.
type thinConvolution struct {
	neighbors *Node // [36, 10, m]
	output    *Node // after the ReLU, [36, 32, m]
	passes    *Node // where the ReLU's gradient does
}

// convolveImages applies a 3x3 kernel [3, 3, 1, 32], bias [32] and ReLU to images [n, 28, 28].
func convolveImages(images, kernel, bias *Node) thinConvolution {
	n := images.Shape().Dimensions[0]
	const edge = side / tile
	x := TransposeAllAxes(Reshape(images, n, edge, tile, edge, tile), 2, 4, 1, 3, 0)
	// Patches of layer 1 depend on 8x8 pixels: two tiles each way. [8, 8, 6, 6, n]
	for axis := range 2 {
		x = Concatenate([]*Node{SliceAxis(x, 2+axis, AxisRange(0, tiles)), SliceAxis(x, 2+axis, AxisRange(1, edge))},
			axis)
	}
	var columns []*Node
	for i := range 3 {
		for j := range 3 {
			columns = append(columns, Reshape(Slice(x, AxisRange(i, i+patch), AxisRange(j, j+patch)), positions, 1,
				tiles*tiles*n))
		}
	}
	c := thinConvolution{neighbors: Concatenate(append(columns, OnesLike(columns[0])), 1)}
	weights := Transpose(Concatenate([]*Node{Reshape(kernel, taps, filters1), Reshape(bias, 1, filters1)}, 0), 0, 1)
	c.output, c.passes = relu(batched(repeated(weights, positions), c.neighbors))
	return c
}

// back gives the loss's gradient with respect to kernel [9, 32] and bias [1, 32], from that with respect to the output.
func (c *thinConvolution) back(d *Node) (kernel, bias *Node) {
	weights := batchedTransposed(where(c.passes, d), c.neighbors)
	weights = Transpose(sumOver(weights, 0), 0, 1)
	return Slice(weights, AxisRange(0, taps)), Slice(weights, AxisElem(taps))
}

// A wideConvolution is the second layer, by Winograd's F(4x4, 3x3) (Lavin and Gray 2015, algorithm 1): a tile of the
// output is
//
//	A' [ (G kernel G') . (B' patch B) ] A
//
// for its patch of the input, where . multiplies element by element and sums over channels: 36 products instead of 144
// for 16 pixels. For all tiles at once, each of the 36 is a matrix product over the channels, and so is each of the
// linear maps around it (as a Kronecker product: B' patch B is (B' x B') patch).
//
// The backward pass is the same maps transposed. It is written by hand because automatic differentiation makes products
// with transposed left sides, which are twice as slow in XLA.
type wideConvolution struct {
	kernel  *Node
	patches *Node // B' patch B, [36, 32, m]
	output  *Node // [16, 64, m]; row 4w+p is pixel w of 2x2-window p of a tile
}

// inputMap is B'.
func inputMap() matrix {
	return matrix{
		{4, 0, -5, 0, 1, 0}, {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
		{0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1},
	}.twice()
}

// kernelMap is G.
func kernelMap() matrix {
	return matrix{
		{1. / 4, 0, 0}, {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
		{1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1},
	}.twice()
}

// outputMap is A', with the rows in the order of a wideConvolution's output.
func outputMap() matrix {
	return matrix{
		{1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1},
	}.twice().rows(0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15)
}

// convolve applies a 3x3 kernel [3, 3, 32, 64] to patches [36, 32, m].
func convolve(x, kernel *Node) wideConvolution {
	m := x.Shape().Dimensions[2]
	c := wideConvolution{kernel: kernel}
	c.patches = Reshape(inputMap().times(Reshape(x, positions, filters1*m)), positions, filters1, m)
	maps := kernelMap().times(Reshape(TransposeAllAxes(kernel, 0, 1, 3, 2), taps, filters2*filters1))
	products := batched(Reshape(maps, positions, filters2, filters1), c.patches)
	c.output = Reshape(outputMap().times(Reshape(products, positions, filters2*m)), tile*tile, filters2, m)
	return c
}

// back gives the loss's gradient with respect to the patches of the input and the kernel, from that with respect to the
// output.
func (c *wideConvolution) back(d *Node) (input, kernel *Node) {
	m := d.Shape().Dimensions[2]
	d = Reshape(outputMap().transposed().times(Reshape(d, tile*tile, filters2*m)), positions, filters2, m)

	kernel = kernelMap().transposed().times(Reshape(batchedTransposed(d, c.patches), positions, filters2*filters1))
	kernel = TransposeAllAxes(Reshape(kernel, 3, 3, filters2, filters1), 0, 1, 3, 2)

	maps := Reshape(kernelMap().times(Reshape(c.kernel, taps, filters1*filters2)), positions, filters1, filters2)
	input = inputMap().transposed().times(Reshape(batched(maps, d), positions, filters1*m))
	return Reshape(input, positions, filters1, m), kernel
}

// A matrix of constants.
type matrix [][]float64

// twice is m's Kronecker product with itself: it applies m along rows and columns.
func (m matrix) twice() matrix {
	out := make(matrix, len(m)*len(m))
	for i := range out {
		for j := range len(m[0]) * len(m[0]) {
			out[i] = append(out[i], m[i/len(m)][j/len(m[0])]*m[i%len(m)][j%len(m[0])])
		}
	}
	return out
}

func (m matrix) transposed() matrix {
	out := make(matrix, len(m[0]))
	for i := range out {
		for j := range m {
			out[i] = append(out[i], m[j][i])
		}
	}
	return out
}

func (m matrix) rows(order ...int) (out matrix) {
	for _, i := range order {
		out = append(out, m[i])
	}
	return out
}

// times multiplies with x [columns of m, k].
func (m matrix) times(x *Node) *Node {
	flat := make([][]float32, len(m))
	for i := range m {
		for _, v := range m[i] {
			flat[i] = append(flat[i], float32(v))
		}
	}
	return product(Const(x.Graph(), flat), x)
}
