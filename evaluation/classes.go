package evaluation

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Result is what was measured of a classifier. Rows and columns go by class number.
type Result struct {
	Samples  int     `json:"images"`
	Accuracy float64 `json:"accuracy"` // 0 to 1
	Loss     float64 `json:"loss"`     // mean cross-entropy, in nats
	MacroF1  float64 `json:"macro_f1"` // the mean F1 of the classes that are there
	// ECE is the expected calibration error, 0 to 1: how far the network's confidence is from the share of right
	// answers, over the Bins, weighted by their samples.
	ECE     float64 `json:"ece"`
	Bins    []Bin   `json:"calibration"`
	Classes []Class `json:"classes"`
	// Confusion[l][p] is how many samples of label l were predicted as p; nil for more than MaxConfusion classes.
	Confusion [][]int `json:"confusion"`
	// Mistakes are the most confident ones, the worst first: at most MaxMistakes.
	Mistakes []Mistake `json:"mistakes"`
}

// Bounds of what is kept.
const (
	MaxMistakes  = 24
	MaxConfusion = 256
	MaxClasses   = 1 << 16
)

// Mistake is a sample that was predicted as another class than its own.
type Mistake struct {
	Sample      int     `json:"image"` // its number, from 0
	Label       int     `json:"label"`
	Predicted   int     `json:"predicted"`
	Probability float64 `json:"probability"` // of what was predicted
}

// worse orders mistakes: the more confident one first, and of equal ones the earlier sample.
func worse(a, b Mistake) int {
	return cmp.Or(cmp.Compare(b.Probability, a.Probability), cmp.Compare(a.Sample, b.Sample))
}

// Class is the result of one class. A ratio of an empty set is 0.
type Class struct {
	Name      string  `json:"name"`
	Precision float64 `json:"precision"` // the share of correct ones among those predicted as it
	Recall    float64 `json:"recall"`    // the share predicted as it among those that are it
	F1        float64 `json:"f1"`        // the harmonic mean of both
	Support   int     `json:"support"`   // samples of the class
}

// numBins is as in Guo et al., On Calibration of Modern Neural Networks (2017).
const numBins = 15

// Bin is the samples whose predicted class has a probability in (From, To].
type Bin struct {
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	Samples    int     `json:"images"`
	Confidence float64 `json:"confidence"` // their mean probability
	Accuracy   float64 `json:"accuracy"`   // the share of right answers
}

// Classes counts what a classifier makes of samples.
type Classes struct {
	names                    []string
	hits, support, predicted []int
	confusion                [][]int
	loss                     float64
	mistakes                 []Mistake
	sure                     calibration
}

// NewClasses counts for classes of these names: 1 to MaxClasses.
func NewClasses(names []string) (*Classes, error) {
	k := len(names)
	if k < 1 || k > MaxClasses {
		return nil, fmt.Errorf("%d classes: expected 1 to %d", k, MaxClasses)
	}
	c := &Classes{names: names, hits: make([]int, k), support: make([]int, k), predicted: make([]int, k),
		mistakes: []Mistake{}}
	if k <= MaxConfusion {
		c.confusion = make([][]int, k)
		for i := range c.confusion {
			c.confusion[i] = make([]int, k)
		}
	}
	return c, nil
}

// Add counts a sample, whose logits are a score for each class. What is predicted is the class with the highest score,
// the first of equal ones.
func (c *Classes) Add(sample, label int, scores []float32) error {
	if label < 0 || label >= len(c.names) || len(scores) != len(c.names) {
		return fmt.Errorf("label %d of sample %d, which has %d scores: expected 0 to %d", label, sample, len(scores),
			len(c.names)-1)
	}
	logs, best, err := LogSoftmax(scores)
	if err != nil {
		return fmt.Errorf("sample %d: %w", sample, err)
	}
	probability := math.Exp(logs[best])
	c.loss -= logs[label]
	c.support[label]++
	c.predicted[best]++
	if c.confusion != nil {
		c.confusion[label][best]++
	}
	c.sure.add(probability, best == label)
	if best == label {
		c.hits[label]++
		return nil
	}
	c.mistakes = keep(c.mistakes, Mistake{sample, label, best, probability}, worse)
	return nil
}

// keep takes x into the sorted MaxMistakes worst, if it is one of them.
func keep[T any](worst []T, x T, order func(a, b T) int) []T {
	at, _ := slices.BinarySearchFunc(worst, x, order)
	worst = slices.Insert(worst, at, x)
	return worst[:min(len(worst), MaxMistakes)]
}

// LogSoftmax returns the logarithms of the scores' probabilities, and the index of the highest.
func LogSoftmax(scores []float32) (logs []float64, best int, err error) {
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

// Result sums up what was counted.
func (c *Classes) Result() Result {
	r := Result{Confusion: c.confusion, Classes: make([]Class, len(c.names)), Mistakes: c.mistakes}
	right, there := 0, 0
	for i, name := range c.names {
		hits, support, predicted := c.hits[i], c.support[i], c.predicted[i]
		r.Classes[i] = Class{Name: name, Precision: ratio(hits, predicted), Recall: ratio(hits, support),
			F1: ratio(2*hits, predicted+support), Support: support}
		if support+predicted > 0 { // else the class is not part of the data
			r.MacroF1 += r.Classes[i].F1
			there++
		}
		r.Samples += support
		right += hits
	}
	r.MacroF1 /= float64(max(1, there))
	r.Accuracy, r.Loss = ratio(right, r.Samples), c.loss/float64(max(1, r.Samples))
	r.Bins, r.ECE = c.sure.bins()
	return r
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// calibration collects what bins are made of.
type calibration struct {
	samples, right [numBins]int
	confidence     [numBins]float64
}

func (c *calibration) add(probability float64, right bool) {
	b := min(numBins-1, max(0, int(math.Ceil(probability*numBins))-1))
	c.samples[b]++
	c.confidence[b] += probability
	if right {
		c.right[b]++
	}
}

// bins are those with samples, and the expected calibration error.
func (c *calibration) bins() (bins []Bin, ece float64) {
	total := 0
	for b, n := range c.samples {
		total += n
		if n > 0 {
			bins = append(bins, Bin{float64(b) / numBins, float64(b+1) / numBins, n, c.confidence[b] / float64(n),
				ratio(c.right[b], n)})
		}
	}
	for _, b := range bins {
		ece += float64(b.Samples) / float64(total) * math.Abs(b.Accuracy-b.Confidence)
	}
	return bins, ece
}
