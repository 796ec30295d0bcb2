package cnn

import (
	"fmt"

	"evenweave"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph" // the network reads like its formulas
)

const (
	side   = 28          // pixels along each edge of an image
	pixels = side * side // of one image

	defaultClasses = 10
)

// MaxClasses is how many a network may have: a label is a byte.
const MaxClasses = 256

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

// parameters lists the network's tensors in the documented order, in which gradients, checkpoints and hashes hold them.
func parameters(classes int) []Tensor {
	tensors := []Tensor{
		{Name: "conv1/kernel", Shape: []int{3, 3, 1, filters1}},
		{Name: "conv1/bias", Shape: []int{filters1}},
		{Name: "conv2/kernel", Shape: []int{3, 3, filters1, filters2}},
		{Name: "conv2/bias", Shape: []int{filters2}},
		{Name: "dense/kernel", Shape: []int{features, classes}},
		{Name: "dense/bias", Shape: []int{classes}},
	}
	offset := 0
	for i := range tensors {
		tensors[i].Offset = offset
		offset += tensors[i].Size()
	}
	return tensors
}

// numParameters is the length of a gradient; classesOf is the number of classes that it is for.
func numParameters(classes int) int { return convolutionParameters + (features+1)*classes }
func classesOf(parameters int) int  { return (parameters - convolutionParameters) / (features + 1) }

const convolutionParameters = (3*3+1)*filters1 + (3*3*filters1+1)*filters2

// Layers implements evenweave.Describer: the network as the recipe trains it.
func (m *Model) Layers() []evenweave.Layer {
	return []evenweave.Layer{
		{Name: "input, scaled to 0-1", Output: "28x28x1"},
		{Name: "conv 3x3, ReLU", Output: "26x26x32", Parameters: 320},
		{Name: "conv 3x3, ReLU", Output: "24x24x64", Parameters: 18_496},
		{Name: "max-pool 2x2", Output: "12x12x64"},
		{Name: fmt.Sprintf("dropout %g", m.recipe.Dropout), Output: "12x12x64"},
		{Name: "flatten", Output: "9216"},
		{Name: "dense", Output: fmt.Sprint(m.classes), Parameters: (features + 1) * m.classes},
	}
}

// Schedule implements evenweave.Describer.
func (m *Model) Schedule() string {
	if m.recipe.Decay || m.recipe.WarmUp > 0 {
		return fmt.Sprintf("the learning rate of recipe %q rises and falls over the whole length of the job",
			m.recipe.Name)
	}
	return ""
}

// A network is the forward pass, with what the backward pass needs of it.
type network struct {
	conv1    thinConvolution
	conv2    wideConvolution
	pool     pool
	features *Node   // [32, 288, n]
	scale    float64 // of features that dropout keeps
	dense    denseLayer
	logits   *Node // [classes, n]
}

// forward is the network: images [n, 784] of bytes in, logits [classes, n] out. A nil key turns dropout off.
func forward(params, images *Node, key *dropoutKey) *network {
	n := images.Shape().Dimensions[0]
	w := split(params)
	net := &network{scale: 1}

	x := MulScalar(ConvertDType(images, dtypes.Float32), 1.0/255)
	net.conv1 = convolveImages(Reshape(x, n, side, side), w["conv1/kernel"], w["conv1/bias"])
	net.conv2 = convolve(net.conv1.output, w["conv2/kernel"])
	// Bias and ReLU after the max-pool, not before: both are monotone, so it is the same function of a quarter of the
	// elements.
	net.pool = maxPool(net.conv2)
	x, _ = relu(Add(net.pool.output, Reshape(w["conv2/bias"], 1, filters2, 1)))
	x.AssertDims(4, filters2, tiles*tiles*n)
	net.features = Reshape(x, denseParts, partFeatures, n)
	if key != nil {
		net.scale = key.scale()
		net.features = dropout(net.features, *key)
	}
	net.dense = dense(net.features, w["dense/kernel"], w["dense/bias"])
	net.logits = net.dense.output
	net.logits.AssertDims(classesOf(params.Shape().Size()), n)
	return net
}

// gradient of a loss by all parameters, from that by the logits, [classes, n].
func (net *network) gradient(d *Node) *Node {
	by := map[string]*Node{}
	x, kernel, bias := net.dense.back(d)
	by["dense/kernel"], by["dense/bias"] = kernel, bias
	// Dropout and ReLU passed on just the features that are positive. These are in memory, in the very shape that the
	// dense layer's products read: of anything else XLA computes dropout's mask again, in each loop that reads the
	// gradient.
	x = MulScalar(where(IsPositive(net.features), x), net.scale)
	x = Reshape(x, 4, filters2, -1)
	by["conv2/bias"] = sumOver(sumOver(x, 0), 1)
	patches, kernel := net.conv2.back(net.pool.back(x))
	by["conv2/kernel"] = kernel
	by["conv1/kernel"], by["conv1/bias"] = net.conv1.back(patches)
	var flat []*Node
	for _, t := range parameters(d.Shape().Dimensions[0]) {
		flat = append(flat, Reshape(by[t.Name], t.Size()))
	}
	return Concatenate(flat, 0)
}

// crossEntropy gives the weighted sum of the samples' losses, and its gradient by the logits, [classes, n]. With
// smoothing e the target is 1-e on the label and e spread evenly over all classes.
func crossEntropy(logits, labels, weights *Node, smoothing float64) (loss, d *Node) {
	classes := logits.Shape().Dimensions[0]
	target := Transpose(OneHot(labels, classes, dtypes.Float32), 0, 1)
	if smoothing > 0 {
		target = AddScalar(MulScalar(target, 1-smoothing), smoothing/float64(classes))
	}
	x := Sub(logits, ReduceAndKeep(logits, ReduceMax, 0)) // its exponentials do not overflow
	exponentials := Exp(x)
	sums := ExpandDims(sumOver(exponentials, 0), 0)
	losses := sumOver(Mul(target, Sub(Log(sums), x)), 0)
	d = Mul(Sub(Div(exponentials, sums), target), ExpandDims(weights, 0))
	return sumAll(Mul(weights, losses)), d
}

// split cuts the flat parameters into tensors by name.
func split(flat *Node) map[string]*Node {
	parts := map[string]*Node{}
	for _, t := range parameters(classesOf(flat.Shape().Size())) {
		parts[t.Name] = Reshape(Slice(flat, AxisRange(t.Offset, t.Offset+t.Size())), t.Shape...)
	}
	return parts
}

// A dropoutKey selects a mask: two uint32 scalars, from the micro-batch's key, and the share of the elements that it
// zeroes.
type dropoutKey struct {
	low, high *Node
	rate      float64
}

// scale makes up for the elements that are zeroed.
func (k *dropoutKey) scale() float64 { return 1 / (1 - k.rate) }

// dropout zeroes some of the elements and scales up the others. Whether an element stays is a hash of its index
// and the key, so it depends on nothing else; a generator with state would make it depend on the order of calls.
func dropout(x *Node, key dropoutKey) *Node {
	g := x.Graph()
	h := IotaFull(g, shapes.Make(dtypes.Uint32, x.Shape().Dimensions...))
	// Two rounds of multiply and xor-shift (lowbias32 by Chris Wellons), with a half of the key before each.
	h = BitwiseXor(h, key.low)
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	h = MulScalar(h, uint32(0x7feb352d))
	h = Add(h, key.high)
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(15)))
	h = MulScalar(h, uint32(0x846ca68b))
	h = BitwiseXor(h, BitwiseShiftRightLogicalScalar(h, uint32(16)))
	keep := GreaterOrEqual(h, Scalar(g, dtypes.Uint32, uint32(key.rate*(1<<32))))
	return where(keep, MulScalar(x, key.scale()))
}
