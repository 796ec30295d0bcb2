package dataset

import (
	"crypto/sha256"
	"fmt"

	"evenweave"
)

// Split sets the last heldOut samples of d aside: rest are the others. Where neighbours are alike (sorted data),
// shuffle first: Split(Shuffle(d, 1), n). heldOut 0 gives d itself and a nil held.
func Split(d evenweave.Data, heldOut int) (rest, held evenweave.Data, err error) {
	if heldOut < 0 || heldOut >= d.Len() {
		return nil, nil, fmt.Errorf("cannot hold out %d of %d samples: choose 0 to %d", heldOut, d.Len(), d.Len()-1)
	}
	if heldOut == 0 {
		return d, nil, nil
	}
	cut := d.Len() - heldOut
	if rest, err = Range(d, 0, cut); err == nil {
		held, err = Range(d, cut, d.Len())
	}
	return rest, held, err
}

// shares divides d: the last samples are the test part, those before them are held out.
func shares(d evenweave.Data, test, heldOut float64) (sets evenweave.Sets, err error) {
	n := float64(d.Len())
	tested, held := int(n*test), int(n*heldOut)
	if test > 0 && tested == 0 || heldOut > 0 && held == 0 {
		return sets, fmt.Errorf("%d samples: a test part of %v and %v held out: expected at least one in each",
			d.Len(), test, heldOut)
	}
	if sets.Train, sets.Test, err = Split(d, tested); err == nil {
		sets.Train, sets.HeldOut, err = Split(sets.Train, held)
	}
	return sets, err
}

// checkShares refuses what leaves nothing to train on.
func checkShares(test, heldOut float64) error {
	if test >= 0 && heldOut >= 0 && test+heldOut < 1 {
		return nil
	}
	return fmt.Errorf("a test part of %v and %v held out: expected shares of 0 or more, below 1 together", test,
		heldOut)
}

// Range returns the samples from (included) to to (excluded) of d.
func Range(d evenweave.Data, from, to int) (evenweave.Data, error) {
	if from < 0 || to > d.Len() || from >= to {
		return nil, fmt.Errorf("cannot take samples %d to %d of %d: expected at least one of 0 to %d",
			from, to-1, d.Len(), d.Len()-1)
	}
	at := func(i int32) int32 { return int32(from) + i }
	return &part{shown{d, at}, d, digestOf(d.Digest(), fmt.Sprintf("%d-%d", from, to-1)), to - from}, nil
}

// Shuffle returns the samples of d in another order, which is a pure function of the seed. It takes 4 bytes of memory
// for each sample. (The trainer shuffles each epoch by itself: this is for a Split of sorted data.)
func Shuffle(d evenweave.Data, seed uint64) evenweave.Data {
	order := make([]int32, d.Len())
	random := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeShuffle))
	for i := range order {
		j := random.Below(uint64(i) + 1)
		order[i] = order[j]
		order[j] = int32(i)
	}
	return &part{shown{d, func(i int32) int32 { return order[i] }}, d,
		digestOf(d.Digest(), fmt.Sprintf("shuffled by %d", seed)), len(order)}
}

// digestOf names what was made of data with a digest: readable at its end, of a bounded length however often it is
// done.
func digestOf(digest, what string) string {
	return fmt.Sprintf("%x %s", sha256.Sum256([]byte(digest+"\n"+what)), what)
}

// part is data whose sample i is another index of whole.
type part struct {
	shown
	whole   evenweave.Data
	digest  string
	samples int
}

func (p *part) Len() int       { return p.samples }
func (p *part) Digest() string { return p.digest }

// Load implements evenweave.Data.
func (p *part) Load(b *evenweave.Batch) error {
	for _, i := range b.Samples {
		if i != evenweave.Padding && (i < 0 || int(i) >= p.samples) {
			return fmt.Errorf("sample %d: there is no such sample: expected 0 to %d, or %d for padding", i, p.samples-1,
				evenweave.Padding)
		}
	}
	whole := p.of(b)
	err := p.whole.Load(whole)
	b.Content = whole.Content
	return err
}

// Prefetch implements evenweave.Prefetcher, where whole does.
func (p *part) Prefetch(b *evenweave.Batch) {
	if f, ok := p.whole.(evenweave.Prefetcher); ok {
		f.Prefetch(p.of(b))
	}
}

// of is the batch as whole knows it.
func (p *part) of(b *evenweave.Batch) *evenweave.Batch {
	whole := *b
	whole.Samples = make([]int32, len(b.Samples))
	for k, i := range b.Samples {
		if whole.Samples[k] = evenweave.Padding; i != evenweave.Padding {
			whole.Samples[k] = p.at(i)
		}
	}
	return &whole
}
