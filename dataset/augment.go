package dataset

import (
	"fmt"
	"slices"

	"evenweave"
)

// Augmentation changes images at random, differently in each epoch.
type Augmentation struct {
	Mirror bool // half of them are mirrored, left to right
	Shift  int  // they are shifted by up to so many pixels down, up, right and left; pixels from outside are 0
	Erase  int  // a rectangle of up to so many pixels a side becomes 0, in half of them
}

// Augmented returns d with its first input augmented: uint8 images [height width] or [height width channels]. What
// happens to a sample is a pure function of the job's seed, the epoch and the sample's index in d.
func Augmented(d evenweave.Data, a Augmentation) evenweave.Data {
	a.Shift, a.Erase = max(a.Shift, 0), max(a.Erase, 0)
	about := fmt.Sprintf("augmented %t %d %d", a.Mirror, a.Shift, a.Erase)
	return &augmented{d, shown{data: d}, a, digestOf(d.Digest(), about)}
}

type augmented struct {
	evenweave.Data
	shown
	Augmentation
	digest string
}

func (a *augmented) Digest() string { return a.digest }

// Prefetch implements evenweave.Prefetcher, where the data within does.
func (a *augmented) Prefetch(b *evenweave.Batch) {
	if f, ok := a.Data.(evenweave.Prefetcher); ok {
		f.Prefetch(b)
	}
}

// Load implements evenweave.Data.
func (a *augmented) Load(b *evenweave.Batch) error {
	if err := a.Data.Load(b); err != nil {
		return err
	}
	c, ok := b.Content.(*Content)
	if !ok || len(c.Inputs) == 0 || c.Inputs[0].Type != evenweave.Uint8 || len(c.Inputs[0].Shape)/2 != 1 {
		return fmt.Errorf("%s: expected uint8 images [height width] or [height width channels] as its first input",
			a.digest)
	}
	shape := append(slices.Clone(c.Inputs[0].Shape), 1)
	for i, sample := range b.Samples {
		if sample != evenweave.Padding {
			a.Change(b, sample, c.Inputs[0].Sample(i), shape[0], shape[1], shape[2])
		}
	}
	return nil
}

// Change changes the image of one sample of a batch in place, as Augmented does: for data that are not of this package.
func (a Augmentation) Change(b *evenweave.Batch, sample int32, image []byte, height, width, channels int) {
	key := evenweave.Key(b.Seed, evenweave.PurposeAugment, uint64(b.Epoch), uint64(sample))
	a.Shift, a.Erase = max(a.Shift, 0), max(a.Erase, 0)
	a.change(pixels{image, height, width, channels}, slices.Clone(image), evenweave.NewGenerator(key))
}

// pixels is an image, row by row.
type pixels struct {
	bytes                   []byte
	height, width, channels int
}

// at returns the bytes of a pixel.
func (p pixels) at(y, x int) []byte { return p.bytes[(y*p.width+x)*p.channels:][:p.channels] }

// change writes the changed image into p; before is the image as it was. It draws the same numbers whatever is switched
// on, so that switching one change off leaves the others as they are.
func (a Augmentation) change(p pixels, before []byte, random *evenweave.Generator) {
	below := func(n int) int { return int(random.Below(uint64(n))) }
	mirror, down, right := below(2) == 1, below(2*a.Shift+1)-a.Shift, below(2*a.Shift+1)-a.Shift
	erase := below(2) == 1
	h, w := 1+below(max(1, min(a.Erase, p.height))), 1+below(max(1, min(a.Erase, p.width)))
	top, left := below(p.height-h+1), below(p.width-w+1)

	from := p
	from.bytes = before
	for y := range p.height {
		for x := range p.width {
			to, fy, fx := p.at(y, x), y-down, x-right
			if a.Mirror && mirror {
				fx = p.width - 1 - fx
			}
			gone := a.Erase > 0 && erase && y >= top && y < top+h && x >= left && x < left+w
			if gone || fy < 0 || fy >= p.height || fx < 0 || fx >= p.width {
				clear(to)
			} else {
				copy(to, from.at(fy, fx))
			}
		}
	}
}
