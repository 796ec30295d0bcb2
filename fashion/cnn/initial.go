package cnn

import (
	"math"

	"evenweave"
)

// initialParameters fills dst (of a network's parameters) with Glorot-uniform kernels and zero biases, as Keras does.
// The numbers depend on the seed alone: not on backend, rank or order of calls.
func initialParameters(seed uint64, dst []float32) {
	for i, t := range parameters(classesOf(len(dst))) {
		part := dst[t.Offset : t.Offset+t.Size()]
		if len(t.Shape) == 1 {
			clear(part)
			continue
		}
		last := len(t.Shape) - 1
		out := t.Shape[last]
		field := t.Size() / out / t.Shape[last-1] // 9 for a 3x3 convolution, 1 for dense
		fanIn, fanOut := field*t.Shape[last-1], field*out
		limit := float32(math.Sqrt(6 / float64(fanIn+fanOut)))
		random := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeInit, uint64(i)))
		for j := range part {
			// 24 random bits give an exact float32 in [-1, 1).
			part[j] = float32(int32(random.Uint64()>>40)-1<<23) / (1 << 23) * limit
		}
	}
}
