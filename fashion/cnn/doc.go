// Package cnn holds the built-in model, a small convolutional network for Fashion-MNIST, on GoMLX by way of
// gomlx/backend: gradients come out, updates go in, panics of the library become errors.
//
// The numbers belong to this package, not to the library. A Model keeps its state as one []float32 in host memory:
//
//	parameters | first moments | second moments
//
// each part with the tensors in the order of Layout. Two compiled programs use it: one gives the gradient of the
// weighted sum of losses of a micro-batch, the other an optimizer step. Both are pure functions of their inputs,
// dropout masks included (they come from a key that is passed in), so equal inputs give equal bits in every process
// with the same plug-in and class of processor.
package cnn
