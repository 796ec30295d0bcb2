// Package fashionmnist reads the Fashion-MNIST data set from its IDX files, plain or gzipped. It checks their form,
// sizes, label range and the SHA-256 of the uncompressed bytes; each error names the file, what was found, what was
// expected and what to do.
package fashionmnist

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Sizes of the data set.
const (
	Side       = 28          // pixels along each edge of an image
	Pixels     = Side * Side // bytes of one image
	NumClasses = 10
	TrainSize  = 60_000
	TestSize   = 10_000
)

// Classes returns the names of labels 0 to 9.
func Classes() []string {
	return []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
		"Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}
}

// Dataset is a list of labelled images. It is read-only once loaded and safe for concurrent reads.
type Dataset struct {
	Images []byte  // Len() x Pixels grey values, row by row, 0 is background
	Labels []uint8 // Len() labels
	Hash   string  // names images, labels and their order: for Fashion-MNIST a SHA-256 in hexadecimal
	Number int     // of classes; every label is below it
}

// Len is the number of samples.
func (d *Dataset) Len() int { return len(d.Labels) }

// Image returns the Pixels bytes of sample i; they belong to the data set.
func (d *Dataset) Image(i int) []byte { return d.Images[i*Pixels : (i+1)*Pixels] }

// Only returns the samples of some classes, in their order and with their labels. For all classes it returns d.
func (d *Dataset) Only(classes []uint8) *Dataset {
	if len(classes) == 0 || len(classes) == d.Number {
		return d
	}
	h := sha256.Sum256(fmt.Appendf(nil, "%s only %v", d.Hash, classes))
	part := &Dataset{Hash: hex.EncodeToString(h[:]), Number: d.Number}
	for i, label := range d.Labels {
		if slices.Contains(classes, label) {
			part.Images, part.Labels = append(part.Images, d.Image(i)...), append(part.Labels, label)
		}
	}
	return part
}

// ParseClasses reads labels below a number, and ranges of them, such as "0-4,7", into ascending order. An empty list
// means all.
func ParseClasses(list string, number int) ([]uint8, error) {
	var classes []uint8
	for item := range strings.SplitSeq(list, ",") {
		if list == "" {
			item = fmt.Sprintf("0-%d", number-1)
		}
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 8)
		to, err2 := strconv.ParseUint(last, 10, 8)
		if err1 != nil || err2 != nil || from > to || to >= uint64(number) {
			return nil, fmt.Errorf("classes %q: expected labels from 0 to %d and ranges of them, such as 0-4,7",
				list, number-1)
		}
		for c := from; c <= to; c++ {
			classes = append(classes, uint8(c))
		}
	}
	slices.Sort(classes)
	return slices.Compact(classes), nil
}

// Split returns all but the last n samples, and those n. Both share memory with d.
func (d *Dataset) Split(n int) (rest, held *Dataset, err error) {
	if n < 0 || n >= d.Len() {
		return nil, nil, fmt.Errorf("cannot hold out %d of %d samples: choose 0 to %d", n, d.Len(), d.Len()-1)
	}
	cut := d.Len() - n
	part := func(name string, from, to int) *Dataset {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %s %d %d", d.Hash, name, from, to))
		return &Dataset{Images: d.Images[from*Pixels : to*Pixels], Labels: d.Labels[from:to],
			Hash: hex.EncodeToString(h[:]), Number: d.Number}
	}
	if n == 0 {
		return d, part("held", cut, cut), nil
	}
	return part("rest", 0, cut), part("held", cut, d.Len()), nil
}
