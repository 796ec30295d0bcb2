package cnn

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" // the network reads like its formulas
)

const (
	side     = 28          // pixels along each edge of an image
	pixels   = side * side // of one image
	classes  = 10
	dropRate = 0.25
)

// A Tensor is one named part of a flat vector.
type Tensor struct {
	Name   string
	Shape  []int
	Offset int // of its first element
}

// Size is the number of elements.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// A Layer is one row of the table that describes the network.
type Layer struct {
	Name       string
	Output     []int // shape for one sample
	Parameters int
}

// parameters lists the network's tensors in the documented order, in which
// gradients, checkpoints and hashes hold them.
func parameters() []Tensor {
	tensors := []Tensor{
		{Name: "conv1/kernel", Shape: []int{3, 3, 1, 32}},
		{Name: "conv1/bias", Shape: []int{32}},
		{Name: "conv2/kernel", Shape: []int{3, 3, 32, 64}},
		{Name: "conv2/bias", Shape: []int{64}},
		{Name: "dense/kernel", Shape: []int{12 * 12 * 64, classes}},
		{Name: "dense/bias", Shape: []int{classes}},
	}
	offset := 0
	for i := range tensors {
		tensors[i].Offset = offset
		offset += tensors[i].Size()
	}
	return tensors
}

// NumParameters is the length of a gradient.
const NumParameters = 110_986

// Layers describes the network, input first.
func Layers() []Layer {
	return []Layer{
		{"input, scaled to 0-1", []int{28, 28, 1}, 0},
		{"conv 3x3, ReLU", []int{26, 26, 32}, 320},
		{"conv 3x3, ReLU", []int{24, 24, 64}, 18_496},
		{"max-pool 2x2", []int{12, 12, 64}, 0},
		{"dropout 0.25", []int{12, 12, 64}, 0},
		{"flatten", []int{9216}, 0},
		{"dense", []int{classes}, 92_170},
	}
}

// logits is the network: images [n, 784] of bytes in, [n, 10] out. A nil key
// turns dropout off.
func logits(params, images *Node, key *dropoutKey, im2col bool) *Node {
	n := images.Shape().Dimensions[0]
	w := split(params)

	x := MulScalar(ConvertDType(images, dtypes.Float32), 1.0/255)
	x = Reshape(x, n, side, side, 1)
	x = relu(Add(conv(x, w["conv1/kernel"], im2col), channels(w["conv1/bias"])))
	x.AssertDims(n, 26, 26, 32)
	// Bias and ReLU after the max-pool, not before: both are monotone, so it is
	// the same function of a quarter of the elements.
	x = firstMax(convInWindows(x, w["conv2/kernel"]))
	x = relu(Add(x, channels(w["conv2/bias"])))
	x.AssertDims(n, 12, 12, 64)
	if key != nil {
		x = dropout(x, *key)
	}
	x = Reshape(x, n, 12*12*64)
	x = Add(Dot(x, w["dense/kernel"]).Product(), ExpandLeftToRank(w["dense/bias"], 2))
	x.AssertDims(n, classes)
	return x
}

// losses returns each sample's cross-entropy, [n]. With smoothing e the target
// is 1-e on the label and e spread evenly over all classes.
func losses(logits, labels *Node, smoothing float64) *Node {
	target := OneHot(labels, classes, dtypes.Float32)
	if smoothing > 0 {
		target = AddScalar(MulScalar(target, 1-smoothing), smoothing/classes)
	}
	return Neg(ReduceSum(Mul(target, LogSoftmax(logits)), 1))
}

// split cuts the flat parameters into tensors by name.
func split(flat *Node) map[string]*Node {
	parts := map[string]*Node{}
	for _, t := range parameters() {
		parts[t.Name] = Reshape(Slice(flat, AxisRange(t.Offset, t.Offset+t.Size())), t.Shape...)
	}
	return parts
}

func channels(bias *Node) *Node { return ExpandLeftToRank(bias, 4) }

// relu passes no gradient at exactly 0, as in Keras and PyTorch (the gradient
// of Max would): fresh biases are 0 and so is the background of the images.
func relu(x *Node) *Node { return Where(IsPositive(x), x, ZerosLike(x)) }

// firstMax is the max-pool: the largest of four, element by element. Of equal
// ones the first gets the gradient, as in Keras and PyTorch, hence the explicit
// choice: the gradient of ReduceMax goes to all of them, that of MaxPool is
// missing on the "go" backend.
func firstMax(a, b, c, d *Node) *Node {
	va, vb, vc, vd := StopGradient(a), StopGradient(b), StopGradient(c), StopGradient(d)
	return Where(GreaterOrEqual(va, Max(vb, Max(vc, vd))), a,
		Where(GreaterOrEqual(vb, Max(vc, vd)), b,
			Where(GreaterOrEqual(vc, vd), c, d)))
}

// A dropoutKey selects a mask: two uint32 scalars, from the micro-batch's key.
type dropoutKey struct{ low, high *Node }

// dropout zeroes a quarter of the elements and scales up the others. An
// element's fate is a hash of its index and the key, so it depends on nothing
// else; a generator with state would make it depend on the order of calls.
func dropout(x *Node, key dropoutKey) *Node {
	g := x.Graph()
	h := IotaFull(g, shapes.Make(dtypes.Uint32, x.Shape().Dimensions...))
	// Two rounds of multiply and xor-shift (lowbias32 by Chris Wellons), with
	// a half of the key before each.
	h = BitwiseXor(h, key.low)
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	h = MulScalar(h, uint32(0x7feb352d))
	h = Add(h, key.high)
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(15)))
	h = MulScalar(h, uint32(0x846ca68b))
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	const limit = uint32(dropRate * (1 << 32))
	keep := GreaterOrEqual(h, Scalar(g, dtypes.Uint32, limit))
	return Where(keep, MulScalar(x, 1/(1-dropRate)), ZerosLike(x))
}
