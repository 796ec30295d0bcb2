package fashion

import (
	"fmt"
	"image"

	"evenweave"
	"evenweave/fashion/cnn"
	"evenweave/fashion/fashionmnist"
)

// data opens what the options name of the files below a directory.
func (o *options) data(dir string) (sets evenweave.Sets, err error) {
	if dir, err = fashionmnist.Find(dir); err != nil {
		return sets, err
	}
	classes, err := fashionmnist.ParseClasses(o.Classes)
	if err != nil {
		return sets, err
	}
	recipe, err := cnn.RecipeNamed(o.Recipe)
	if err != nil {
		return sets, err
	}
	train, test, err := fashionmnist.Load(dir)
	if err != nil {
		return sets, err
	}
	train = train.Only(classes)
	kept, held, err := train.Split(o.Holdout)
	if err != nil {
		return sets, err
	}
	if o.Samples > kept.Len() {
		return sets, fmt.Errorf("--samples %d: there are %d", o.Samples, kept.Len())
	}
	files := fashionmnist.Files(dir)
	sets.Train = samples{train, o.Samples, train.Hash, recipe, files[:2]}
	only := test.Only(classes)
	sets.Test = samples{Dataset: only, n: only.Len(), digest: only.Hash, files: files[2:]}
	if o.Holdout > 0 {
		if held, _, err = held.Split(max(0, o.Holdout-fashionmnist.TestSize)); err != nil { // the first so many
			return sets, err
		}
		sets.HeldOut = samples{Dataset: held, n: held.Len(), digest: held.Hash, files: files[:2]}
	}
	return sets, nil
}

// samples are the first n of a data set as the network takes them, augmented as a recipe says.
type samples struct {
	*fashionmnist.Dataset
	n      int
	digest string
	recipe cnn.Recipe
	files  []string
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
func (s samples) Classes() []string { return fashionmnist.Classes() }

// Class implements evenweave.Classed.
func (s samples) Class(sample int) int { return int(s.Labels[sample]) }

// Picture implements evenweave.Pictured.
func (s samples) Picture(sample int) (image.Image, error) { return pictureOf(s.Image(sample)), nil }

// Files implements evenweave.Located.
func (s samples) Files() []string { return s.files }
