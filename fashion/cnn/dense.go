package cnn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

const (
	features = 12 * 12 * filters2 // of the dense layer

	denseParts   = 4 * channelGroups // that the dense layer's products are computed in
	partFeatures = features / denseParts

	channelGroups = 8
)

// A denseLayer gives classes from features. Its 9216 terms are added up in 32 parts (see portable.go): a part has one
// of the four pixels of a pooled tile and 8 of the 64 channels.
type denseLayer struct {
	kernel *Node // [9216, classes]
	input  *Node // [32, 288, n]
	output *Node // [classes, n]
}

// dense applies a kernel [9216, classes] and a bias [classes] to features [32, 288, n], in the order of a pool's
// output.
func dense(x, kernel, bias *Node) denseLayer {
	l := denseLayer{kernel: kernel, input: x}
	// The rows of each part, in the order of x, transposed.
	rows := TransposeAllAxes(denseTiles(kernel), 1, 3, 4, 6, 5, 0, 2)
	sums := productOfParts(Reshape(rows, denseParts, -1, partFeatures), l.input)
	l.output = Add(sums, ExpandDims(bias, 1))
	return l
}

// denseTiles is a kernel with a flattened image's axes: tile and pixel along each edge, groups of channels, channels of
// a group; and classes.
func denseTiles(kernel *Node) *Node {
	return Reshape(kernel, tiles, 2, tiles, 2, channelGroups, filters2/channelGroups, -1)
}

// back gives the loss's gradient with respect to features, kernel and bias, from that with respect to the output.
func (l *denseLayer) back(d *Node) (input, kernel, bias *Node) {
	bias = sumOver(d, 1)
	kernel = partsTimes(l.input, Transpose(d, 0, 1))
	kernel = Reshape(kernel, 2, 2, channelGroups, filters2/channelGroups, tiles, tiles, -1)
	kernel = TransposeAllAxes(kernel, 4, 0, 5, 1, 2, 3, 6)

	rows := TransposeAllAxes(denseTiles(l.kernel), 1, 3, 4, 5, 0, 2, 6)
	input = partsTimes(Reshape(rows, denseParts, partFeatures, -1), d)
	return input, kernel, bias
}
