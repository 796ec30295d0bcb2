package fashion

import (
	"encoding/binary"
	"fmt"
	"image"
	"slices"

	"evenweave"
	"evenweave/dataset"
	"evenweave/fashion/cnn"
	"evenweave/fashion/fashionmnist"
)

// data opens what the options name of the files below a directory. An option of 0 samples becomes the number of all.
func (o *options) data(dir string) (sets evenweave.Sets, err error) {
	recipe, err := cnn.RecipeNamed(o.Recipe)
	if err != nil {
		return sets, err
	}
	named := dir != ""
	if dir, err = fashionmnist.Find(dir); err != nil {
		return sets, err
	}
	train, test, err := o.load(dir, named)
	if err != nil {
		return sets, err
	}
	var trained, tested []string // files
	if o.Outputs == 0 {
		files := fashionmnist.Files(dir)
		trained, tested = files[:2], files[2:]
	}
	classes, err := fashionmnist.ParseClasses(o.Classes, train.Number)
	if err != nil {
		return sets, evenweave.UsageError{Err: fmt.Errorf("--%w", err)}
	}
	train = train.Only(classes)
	if err := o.choose(train.Len()); err != nil {
		return sets, evenweave.UsageError{Err: err}
	}
	_, held, err := train.Split(o.Holdout)
	if err != nil {
		return sets, err
	}
	sets.Train = samples{train, o.Samples, train.Hash, recipe, o.names(), trained}
	if test != nil {
		only := test.Only(classes)
		sets.Test = samples{Dataset: only, n: only.Len(), digest: only.Hash, classes: o.names(), files: tested}
	}
	if o.Holdout > 0 {
		if held, _, err = held.Split(max(0, o.Holdout-fashionmnist.TestSize)); err != nil { // the first so many
			return sets, err
		}
		sets.HeldOut = samples{Dataset: held, n: held.Len(), digest: held.Hash, classes: o.names(),
			files: trained}
	}
	return sets, o.fits()
}

// choose settles how many of so many samples are trained on.
func (o *options) choose(have int) error {
	switch left := have - o.Holdout; {
	case left < 1:
		return fmt.Errorf("--holdout %d leaves no sample to train on", o.Holdout)
	case o.Samples > left:
		return fmt.Errorf("--samples %d: there are %d, %d of them held out: choose at most %d", o.Samples, have,
			o.Holdout, left)
	case o.Samples == 0:
		o.Samples = left
	}
	return nil
}

// load opens Fashion-MNIST by its known hashes, or, in a directory that the user named, another set of its form by
// structure. test is nil where there is none.
func (o *options) load(dir string, named bool) (train, test *fashionmnist.Dataset, err error) {
	o.Outputs = 0
	if train, test, err = fashionmnist.Load(dir); err == nil || !named || fashionmnist.Holds(dir) {
		return train, test, err
	}
	sets, number, other := dataset.IDX(dir)
	if other != nil {
		return nil, nil, fmt.Errorf("%w; nor are they another set of images: %w", err, other)
	}
	o.Outputs = number
	if train, err = inMemory(sets.Train, number); err == nil && sets.Test != nil {
		test, err = inMemory(sets.Test, number)
	}
	return train, test, err
}

// maxSamples bounds what a set takes of memory: EMNIST, the largest one, has 697,932.
const maxSamples = 1 << 20

// inMemory reads a set of images.
func inMemory(from evenweave.Data, number int) (*fashionmnist.Dataset, error) {
	if from.Len() > maxSamples {
		return nil, fmt.Errorf("%d images: expected at most %d", from.Len(), maxSamples)
	}
	d := &fashionmnist.Dataset{Hash: from.Digest(), Number: number}
	b := &evenweave.Batch{}
	for at := 0; at < from.Len(); at += len(b.Samples) {
		b.Samples = b.Samples[:0]
		for i := at; i < min(at+1000, from.Len()); i++ {
			b.Samples = append(b.Samples, int32(i))
		}
		if err := from.Load(b); err != nil {
			return nil, err
		}
		c := b.Content.(*dataset.Content)
		if shape := c.Inputs[0].Shape; !slices.Equal(shape, []int{fashionmnist.Side, fashionmnist.Side}) {
			return nil, fmt.Errorf("images of %v pixels: the network takes 28 x 28", shape)
		}
		d.Images = append(d.Images, c.Inputs[0].Bytes...)
		for i := range b.Samples {
			d.Labels = append(d.Labels, uint8(binary.LittleEndian.Uint32(c.Labels[0].Sample(i))))
		}
	}
	return d, nil
}

// samples are the first n of a data set as the network takes them, augmented as a recipe says.
type samples struct {
	*fashionmnist.Dataset
	n      int
	digest string
	recipe cnn.Recipe

	classes, files []string
}

// Len implements evenweave.Data.
func (s samples) Len() int { return s.n }

// Digest implements evenweave.Data.
func (s samples) Digest() string { return s.digest }

// Load implements evenweave.Data.
func (s samples) Load(b *evenweave.Batch) error {
	c, ok := b.Content.(*cnn.Content)
	if !ok {
		c = &cnn.Content{}
		b.Content = c
	}
	c.Reset()
	for _, i := range b.Samples {
		switch {
		case i == evenweave.Padding:
			c.Pad()
		case int(i) >= s.n:
			return fmt.Errorf("sample %d: the data set has %d", i, s.n)
		default:
			c.Add(s.Image(int(i)), s.Labels[i])
		}
	}
	s.recipe.Augment(b, c)
	return nil
}

// Classes implements evenweave.Classed.
func (s samples) Classes() []string { return s.classes }

// Class implements evenweave.Classed.
func (s samples) Class(sample int) int { return int(s.Labels[sample]) }

// Picture implements evenweave.Pictured.
func (s samples) Picture(sample int) (image.Image, error) { return pictureOf(s.Image(sample)), nil }

// Files implements evenweave.Located.
func (s samples) Files() []string { return s.files }
