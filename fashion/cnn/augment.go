package cnn

import (
	"slices"

	"evenweave"
)

// Augment changes the images that a batch holds in place, as the recipe says. What happens to a sample depends on
// (seed, epoch, sample) only, in integers: not on its micro-batch, nor on the rank that computes it. Padding is left
// alone.
func (r Recipe) Augment(b *evenweave.Batch, c *Content) {
	if !r.Flip && r.Shift == 0 && r.Erase == 0 {
		return
	}
	var scratch [pixels]byte
	for i, sample := range b.Samples {
		if sample == evenweave.Padding {
			continue
		}
		key := evenweave.Key(b.Seed, evenweave.PurposeAugment, uint64(b.Epoch), uint64(sample))
		r.augment(c.Images[i*pixels:(i+1)*pixels], &scratch, evenweave.NewGenerator(key))
	}
}

// augment draws the same numbers whatever they come to, so that ingredients can be left out one by one without changing
// the others.
func (r Recipe) augment(image []byte, scratch *[pixels]byte, random *evenweave.Generator) {
	within := func(limit int) int { return int(random.Below(uint64(2*limit+1))) - limit } // [-limit, limit]
	mirror := random.Below(2) == 1
	down, right := within(r.Shift), within(r.Shift)
	erase := random.Below(2) == 1
	height, width := 1+int(random.Below(uint64(max(r.Erase, 1)))), 1+int(random.Below(uint64(max(r.Erase, 1))))
	top, left := int(random.Below(uint64(side-height+1))), int(random.Below(uint64(side-width+1)))

	if r.Flip && mirror {
		for row := range slices.Chunk(image, side) {
			slices.Reverse(row)
		}
	}
	if down != 0 || right != 0 {
		copy(scratch[:], image)
		clear(image)
		for y := max(0, down); y < min(side, side+down); y++ {
			from := scratch[(y-down)*side : (y-down+1)*side]
			copy(image[y*side+max(0, right):(y+1)*side], from[max(0, -right):])
		}
	}
	if r.Erase > 0 && erase {
		for y := top; y < top+height; y++ {
			clear(image[y*side+left : y*side+left+width])
		}
	}
}
