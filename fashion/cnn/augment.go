package cnn

import (
	"evenweave"
	"evenweave/dataset"
)

// Augment changes the images that a batch holds in place, as the recipe says. What happens to a sample depends on
// (seed, epoch, sample) only, in integers: not on its micro-batch, nor on the rank that computes it. Padding is left
// alone.
func (r Recipe) Augment(b *evenweave.Batch, c *Content) {
	a := dataset.Augmentation{Mirror: r.Flip, Shift: r.Shift, Erase: r.Erase}
	if a == (dataset.Augmentation{}) {
		return
	}
	for i, sample := range b.Samples {
		if sample != evenweave.Padding {
			a.Change(b, sample, c.Image(i), side, side, 1)
		}
	}
}
