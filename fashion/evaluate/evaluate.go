// Package evaluate measures a classifier on a labelled set and shows the result.
package evaluate

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// BatchSize is the most images of one call of logits. The last call's n may be smaller; a program of fixed shape pads.
const BatchSize = 250

// Result is what Evaluate measured. Rows and columns go by class number.
type Result struct {
	Images   int     `json:"images"`
	Accuracy float64 `json:"accuracy"` // 0 to 1
	Loss     float64 `json:"loss"`     // mean cross-entropy, in nats
	MacroF1  float64 `json:"macro_f1"` // the mean F1 of the classes that are there
	// ECE is the expected calibration error, 0 to 1: how far the network's confidence is from the share of right
	// answers, over the Bins, weighted by their images.
	ECE     float64 `json:"ece"`
	Bins    []Bin   `json:"calibration"`
	Classes []Class `json:"classes"`
	// Confusion[l][p] is how many images of label l were predicted as p.
	Confusion [][]int `json:"confusion"`
	// Mistakes are the most confident ones, the worst first: at most MaxMistakes.
	Mistakes []Mistake `json:"mistakes"`
}

// MaxMistakes bounds those that are kept.
const MaxMistakes = 24

// Mistake is an image that was predicted as another class than its own.
type Mistake struct {
	Image       int     `json:"image"` // its number, from 0
	Label       int     `json:"label"`
	Predicted   int     `json:"predicted"`
	Probability float64 `json:"probability"` // of what was predicted
}

// worse orders mistakes: the more confident one first, and of equal ones the earlier image.
func worse(a, b Mistake) int {
	return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(a.Image, b.Image))
}

// keep takes a mistake in if it is among the worst.
func keep(mistakes []Mistake, m Mistake) []Mistake {
	at, _ := slices.BinarySearchFunc(mistakes, m, worse)
	mistakes = slices.Insert(mistakes, at, m)
	return mistakes[:min(len(mistakes), MaxMistakes)]
}

// Class is the result of one class. A ratio of an empty set is 0.
type Class struct {
	Name      string  `json:"name"`
	Precision float64 `json:"precision"` // the share of correct ones among those predicted as it
	Recall    float64 `json:"recall"`    // the share predicted as it among those that are it
	F1        float64 `json:"f1"`        // the harmonic mean of both
	Support   int     `json:"support"`   // images of the class
}

// numBins is as in Guo et al., On Calibration of Modern Neural Networks (2017).
const numBins = 15

// Bin is the images whose predicted class has a probability in (From, To].
type Bin struct {
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	Images     int     `json:"images"`
	Confidence float64 `json:"confidence"` // their mean probability
	Accuracy   float64 `json:"accuracy"`   // the share of right answers
}

// calibration collects what bins are made of.
type calibration struct {
	images, right [numBins]int
	confidence    [numBins]float64
}

func (c *calibration) add(probability float64, right bool) {
	b := min(numBins-1, max(0, int(math.Ceil(probability*numBins))-1))
	c.images[b]++
	c.confidence[b] += probability
	if right {
		c.right[b]++
	}
}

// bins are those with images, and the expected calibration error.
func (c *calibration) bins() (bins []Bin, ece float64) {
	total := 0
	for b, n := range c.images {
		total += n
		if n > 0 {
			bins = append(bins, Bin{float64(b) / numBins, float64(b+1) / numBins, n, c.confidence[b] / float64(n),
				ratio(c.right[b], n)})
		}
	}
	for _, b := range bins {
		ece += float64(b.Images) / float64(total) * math.Abs(b.Accuracy-b.Confidence)
	}
	return bins, ece
}

// Evaluate gives every image to logits exactly once, in order, and compares the predictions with labels.
//
// images holds len(labels) images of imageSize bytes each. logits reads the first n images of its argument and fills
// dst, n rows of len(classes) scores; it must keep neither slice. A prediction is the class with the highest score, the
// first of equal ones. The result depends on the scores alone, not on the batches. Evaluate stops between batches when
// ctx is done.
func Evaluate(ctx context.Context, logits func(images []byte, n int, dst []float32) error,
	images []byte, imageSize int, labels []uint8, classes []string) (Result, error) {
	if err := check(images, imageSize, labels, classes); err != nil {
		return Result{}, err
	}
	k := len(classes)
	confusion := make([][]int, k)
	for i := range confusion {
		confusion[i] = make([]int, k)
	}
	loss, mistakes, sure := 0.0, []Mistake{}, calibration{}
	dst := make([]float32, BatchSize*k)
	for at := 0; at < len(labels); at += BatchSize {
		if err := ctx.Err(); err != nil {
			return Result{}, fmt.Errorf("evaluate: stopped at image %d of %d: %w", at, len(labels), context.Cause(ctx))
		}
		n := min(BatchSize, len(labels)-at)
		if err := logits(images[at*imageSize:(at+n)*imageSize], n, dst[:n*k]); err != nil {
			return Result{}, fmt.Errorf("evaluate: images %d to %d: %w", at, at+n-1, err)
		}
		for i := range n {
			label := int(labels[at+i])
			p, best, err := softmax(dst[i*k : (i+1)*k])
			if err != nil {
				return Result{}, fmt.Errorf("evaluate: image %d: %w", at+i, err)
			}
			loss -= p[label]
			confusion[label][best]++
			sure.add(math.Exp(p[best]), best == label)
			if best != label {
				mistakes = keep(mistakes, Mistake{at + i, label, best, math.Exp(p[best])})
			}
		}
	}
	r := summarize(confusion, loss, classes)
	r.Mistakes = mistakes
	r.Bins, r.ECE = sure.bins()
	return r, nil
}

func check(images []byte, imageSize int, labels []uint8, classes []string) error {
	switch {
	case len(labels) == 0 || len(classes) == 0 || imageSize <= 0:
		return fmt.Errorf("evaluate: %d labels, %d classes, images of %d bytes: want at least one of each",
			len(labels), len(classes), imageSize)
	case len(images) != len(labels)*imageSize:
		return fmt.Errorf("evaluate: %d bytes of images, want %d: %d labels, %d bytes an image",
			len(images), len(labels)*imageSize, len(labels), imageSize)
	}
	for i, l := range labels {
		if int(l) >= len(classes) {
			return fmt.Errorf("evaluate: label of image %d is %d, want 0 to %d", i, l, len(classes)-1)
		}
	}
	return nil
}

// softmax returns the logarithms of the scores' probabilities, and the index of the highest.
func softmax(scores []float32) (logs []float64, best int, err error) {
	for c, s := range scores {
		if math.IsNaN(float64(s)) || math.IsInf(float64(s), 0) {
			return nil, 0, fmt.Errorf("the score of class %d is %g: the weights are not usable", c, s)
		}
		if s > scores[best] {
			best = c
		}
	}
	logs = make([]float64, len(scores))
	sum, top := 0.0, float64(scores[best]) // no exponent exceeds 0
	for c, s := range scores {
		logs[c] = float64(s) - top
		sum += math.Exp(logs[c])
	}
	for c := range logs {
		logs[c] -= math.Log(sum)
	}
	return logs, best, nil
}

func summarize(confusion [][]int, loss float64, classes []string) Result {
	r := Result{Confusion: confusion, Classes: make([]Class, len(classes))}
	right, there := 0, 0
	for c, name := range classes {
		support, predicted := 0, 0
		for other := range classes {
			support += confusion[c][other]
			predicted += confusion[other][c]
		}
		hits := confusion[c][c]
		r.Classes[c] = Class{Name: name, Precision: ratio(hits, predicted), Recall: ratio(hits, support),
			F1: ratio(2*hits, predicted+support), Support: support}
		if support+predicted > 0 { // else the class is not part of the data
			r.MacroF1 += r.Classes[c].F1
			there++
		}
		r.Images += support
		right += hits
	}
	r.MacroF1 /= float64(max(1, there))
	r.Accuracy, r.Loss = ratio(right, r.Images), loss/float64(r.Images)
	return r
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// WriteTable writes r for people: accuracy and loss, one row for each class, and the confusion matrix, with a dot for
// 0.
func (r Result) WriteTable(w io.Writer) error {
	_, err := io.WriteString(w, r.Table())
	return err
}

// Table is what WriteTable writes.
func (r Result) Table() string {
	var b strings.Builder
	widest := len("class")
	for _, c := range r.Classes {
		widest = max(widest, len([]rune(c.Name)))
	}
	fmt.Fprintf(&b, "test accuracy %.2f%%, test loss %.4f, %d images\n", 100*r.Accuracy, r.Loss, r.Images)
	fmt.Fprintf(&b, "macro F1 %.2f%%, calibration error %.2f%%\n\n", 100*r.MacroF1, 100*r.ECE)
	fmt.Fprintf(&b, "   %-*s  precision  recall      F1  support\n", widest, "class")
	for i, c := range r.Classes {
		fmt.Fprintf(&b, "%2d %-*s  %8.1f%% %6.1f%% %6.1f%%  %7d\n", i, widest, c.Name, 100*c.Precision, 100*c.Recall,
			100*c.F1, c.Support)
	}
	cell := len(fmt.Sprint(r.Images/max(1, len(r.Classes)))) + 2
	fmt.Fprintf(&b, "\n   %-*s  predicted as\n   %-*s", widest, "label", widest, "")
	for i := range r.Classes {
		fmt.Fprintf(&b, "%*d", cell, i)
	}
	b.WriteByte('\n')
	for i, row := range r.Confusion {
		fmt.Fprintf(&b, "%2d %-*s", i, widest, r.Classes[i].Name)
		for _, n := range row {
			if n == 0 {
				fmt.Fprintf(&b, "%*s", cell, ".")
			} else {
				fmt.Fprintf(&b, "%*d", cell, n)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
