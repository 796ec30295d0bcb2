package cnn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// Products and sums in the forms that give the same bits on every x86-64 processor with FMA, AVX2 or AVX-512, Intel or
// AMD. The network and the optimizer use these alone. TestOnlyPortableOperations reads what XLA makes of them;
// docs/exactness.md has the measurements.
//
// The order in which a float sum adds its terms decides its bits. On a CPU several libraries choose that order by the
// processor:
//
//   - A product goes to YNNPACK if the left side's terms lie along its last axis
//     and the right side's along its second to last, and neither is a vector. With
//     XLA's flag `portable`, YNNPACK then adds one term after the other, each with
//     one FMA, on every processor. All other products go to Eigen and oneDNN, which
//     cut the terms by the size of the L1 cache and by the width of vectors. XLA
//     turns a canonical product into such a one if it can fold a transposition
//     into it: it folds one of two axes, but none of more axes and none of a
//     repeated matrix.
//   - YNNPACK cuts long products by a width that depends on its kernel. It cuts
//     none of up to 512 terms: write a longer one as a sum of parts.
//   - A sum becomes a loop over vectors, as wide as the processor's. A sum
//     of whole tensors, written as additions, has only one order.
//
// Operations on single elements, including exp, log and sqrt, are always equal: they are IEEE's or polynomials in XLA's
// own code. So are maxima and sums of integers.
//
// On a GPU one library computes all sums: these forms would only cost time, so programs for GPUs use the plain ones.

// plain reports whether a value is computed on a GPU: a device that shares no memory with the host.
func plain(x *Node) bool { return !x.Graph().Backend().HasSharedBuffers() }

// portableTerms bounds the terms of one part of a product: half of YNNPACK's limit, because Eigen and oneDNN keep that
// many together too.
const portableTerms = 256

// product multiplies matrices [m, k] and [k, n].
func product(a, b *Node) *Node { return Dot(a, b).Product() }

// batched multiplies matrices [v, m, k] and [v, k, n], v by v.
func batched(a, b *Node) *Node { return DotGeneral(a, []int{2}, []int{0}, b, []int{1}, []int{0}) }

// batchedTransposed multiplies [v, m, k] and the transposes of [v, n, k].
func batchedTransposed(a, b *Node) *Node {
	return DotGeneral(a, []int{2}, []int{0}, b, []int{2}, []int{0})
}

// productOfParts multiplies [m, v*k] and [v*k, n], given in v parts of the terms, [v, m, k] and [v, k, n].
func productOfParts(a, b *Node) *Node {
	if plain(a) {
		return DotGeneral(a, []int{0, 2}, nil, b, []int{0, 1}, nil)
	}
	return sumOver(batched(a, b), 0)
}

// partsTimes multiplies each of [v, m, k] with one matrix [k, n].
func partsTimes(a, b *Node) *Node {
	if plain(a) {
		return DotGeneral(a, []int{2}, nil, b, []int{0}, nil)
	}
	return batched(a, repeated(b, a.Shape().Dimensions[0]))
}

// repeated gives x of shape [...] as [times, ...].
func repeated(x *Node, times int) *Node {
	return BroadcastToDims(ExpandDims(x, 0), append([]int{times}, x.Shape().Dimensions...)...)
}

// gram multiplies a matrix with its transpose, on the side that gives the smaller result: X'X or XX'.
func gram(x *Node) *Node {
	rows, columns := x.Shape().Dimensions[0], x.Shape().Dimensions[1]
	if rows <= columns {
		return Einsum("ik,jk->ij", x, x)
	}
	if plain(x) {
		return Einsum("ki,kj->ij", x, x)
	}
	parts := (rows + portableTerms - 1) / portableTerms
	for rows%parts != 0 {
		parts++
	}
	// Part p has the rows p, p+parts, ...: parts in the middle keep XLA from folding the transposition.
	x = Reshape(x, rows/parts, parts, columns)
	return sumOver(DotGeneral(x, []int{0}, []int{1}, x, []int{0}, []int{1}), 0)
}

// sumOver adds up along an axis and removes it: it adds the first half to the second until one element is left. An
// element without a partner waits for the next round.
func sumOver(x *Node, axis int) *Node {
	if plain(x) {
		return ReduceSum(x, axis)
	}
	for n := x.Shape().Dimensions[axis]; n > 1; n = x.Shape().Dimensions[axis] {
		half := n / 2
		sum := Add(SliceAxis(x, axis, AxisRange(0, half)), SliceAxis(x, axis, AxisRange(half, 2*half)))
		if n%2 == 1 {
			sum = Concatenate([]*Node{sum, SliceAxis(x, axis, AxisRange(n-1, n))}, axis)
		}
		x = sum
	}
	return Squeeze(x, axis)
}

// sumAll adds up all elements.
func sumAll(x *Node) *Node { return sumOver(Reshape(x, x.Shape().Size()), 0) }
