package cnn

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"evenweave"
)

func TestRatesRiseAndFallAsTheRecipeSays(t *testing.T) {
	const total = 1000
	for _, r := range recipes() {
		highest := 0.0
		for step := range int64(total) {
			rate := r.rate(step, total)
			if rate < 0 || rate > r.LearningRate*1.000001 || math.IsNaN(rate) {
				t.Fatalf("%s: rate %g at step %d", r.Name, rate, step)
			}
			highest = max(highest, rate)
		}
		if highest < 0.99*r.LearningRate {
			t.Errorf("%s: the rate never comes to %g: %g at most", r.Name, r.LearningRate, highest)
		}
		if last := r.rate(total-1, total); r.Decay != (last < 0.01*r.LearningRate) {
			t.Errorf("%s: last rate %g", r.Name, last)
		}
		if beyond := r.rate(2*total, total); beyond < 0 {
			t.Errorf("%s: rate %g after the end", r.Name, beyond)
		}
	}
}

// TestTutorialIsKerasAdam: constant rate, nothing taken off the weights.
func TestTutorialIsKerasAdam(t *testing.T) {
	r, err := RecipeNamed("tutorial")
	if err != nil {
		t.Fatal(err)
	}
	moment, _, keep := r.factors(0, 0)
	if want := 1e-3 * math.Sqrt(1-beta2) / (1 - beta1); math.Abs(float64(moment)-want) > 1e-9 || keep != 1 {
		t.Errorf("factors %g, %g: expected %g, 1", moment, keep, want)
	}
	b := augmentable(4, 0)
	before := bytes.Clone(images(b))
	r.Augment(b, content(b))
	if !bytes.Equal(before, images(b)) {
		t.Error("the tutorial recipe changed the images")
	}
}

// augmentable is a batch of n noisy images of samples first, first+1, ...
func augmentable(n, first int) *evenweave.Batch {
	c := &Content{Images: make([]byte, n*pixels)}
	b := &evenweave.Batch{Samples: make([]int32, n), Epoch: 3, Seed: 1, Content: c}
	for i := range n {
		b.Samples[i] = int32(first + i)
		random := evenweave.NewGenerator(uint64(first + i))
		for j := range pixels {
			c.Images[i*pixels+j] = byte(random.Below(255)) + 1
		}
	}
	return b
}

func content(b *evenweave.Batch) *Content { return b.Content.(*Content) }

func images(b *evenweave.Batch) []byte { return content(b).Images }

func TestAugmentDependsOnSeedEpochAndSampleOnly(t *testing.T) {
	r, err := RecipeNamed("augment")
	if err != nil {
		t.Fatal(err)
	}
	together := augmentable(64, 0)
	r.Augment(together, content(together))
	for i := range 64 {
		alone := augmentable(1, i)
		alone.Step, alone.MicroBatch, alone.Key = 9, 2, 77
		r.Augment(alone, content(alone))
		if !bytes.Equal(images(alone), images(together)[i*pixels:(i+1)*pixels]) {
			t.Fatalf("sample %d comes out otherwise in another micro-batch", i)
		}
	}
	changed := func(edit func(*evenweave.Batch)) bool {
		b := augmentable(64, 0)
		edit(b)
		r.Augment(b, content(b))
		return !bytes.Equal(images(b), images(together))
	}
	if !changed(func(b *evenweave.Batch) { b.Seed = 2 }) {
		t.Error("another seed changes nothing")
	}
	if !changed(func(b *evenweave.Batch) { b.Epoch++ }) {
		t.Error("another epoch changes nothing")
	}
	padding := augmentable(1, 0)
	padding.Samples[0] = evenweave.Padding
	before := slices.Clone(images(padding))
	r.Augment(padding, content(padding))
	if !bytes.Equal(before, images(padding)) {
		t.Error("padding was changed")
	}
}

// TestAugmentMovesPixelsAsItSays: every pixel comes from where flip and shift say, or is blank.
func TestAugmentMovesPixelsAsItSays(t *testing.T) {
	r := Recipe{Flip: true, Shift: 2, Erase: 9}
	seen := map[[3]int]bool{}
	for sample := range 2000 {
		b := augmentable(1, sample)
		b.Seed = 5
		original := bytes.Clone(images(b))
		r.Augment(b, content(b))
		found := 0
		for mirror := range 2 {
			for down := -2; down <= 2; down++ {
				for right := -2; right <= 2; right++ {
					if explains(images(b), original, mirror, down, right) {
						seen[[3]int{mirror, down, right}] = true
						found++
					}
				}
			}
		}
		if found == 0 {
			t.Fatalf("sample %d: no flip and shift explains the image", sample)
		}
	}
	if len(seen) != 2*5*5 {
		t.Errorf("%d of 50 flips and shifts came up", len(seen))
	}
}

func explains(image, original []byte, mirror, down, right int) bool {
	blank := 0
	for y := range side {
		for x := range side {
			got := image[y*side+x]
			fromY, fromX := y-down, x-right
			if fromY < 0 || fromY >= side || fromX < 0 || fromX >= side {
				if got != 0 {
					return false
				}
				continue
			}
			if mirror == 1 {
				fromX = side - 1 - fromX
			}
			switch got {
			case original[fromY*side+fromX]:
			case 0:
				blank++
			default:
				return false
			}
		}
	}
	return blank <= 81
}
