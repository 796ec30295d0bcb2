package gomlx

import (
	"math"
	"slices"

	"evenweave"
)

// Draw draws one of several things at random, by what a network says of each: its logit. At temperature 1 they are as
// likely as the network says, below it likely ones come more often, at 0 the likeliest always.
func Draw(logits []float32, temperature float64, random *evenweave.Generator) int {
	most := slices.Max(logits)
	if temperature <= 0 {
		return slices.Index(logits, most)
	}
	weights, total := make([]float64, len(logits)), 0.0
	for i, l := range logits {
		weights[i] = math.Exp(float64(l-most) / temperature)
		total += weights[i]
	}
	at := total * float64(random.Below(1<<53)) / (1 << 53)
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return slices.Index(logits, most) // the weights' sum was rounded
}
