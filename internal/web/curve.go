package web

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"evenweave/internal/progress"
)

const (
	maxBuckets = 1000 // of a curve: more than a screen has columns
	maxTail    = 1000 // steps at its end that are kept in full
)

// curve is the course of some metrics over the steps, in bounded memory: buckets of equally many steps for all of it,
// and each step of its end. When there are too many buckets, pairs become one. The metrics are those that its points
// name, in the order in which they came.
type curve struct {
	metrics []string
	width   int // steps of a bucket, a power of two
	buckets []bucket
	merges  int // how often buckets became wider, or got more metrics
	tail    recent[point]
}

// point is one committed step.
type point struct {
	step                int
	seconds, productive float64 // from commit to commit; of that, spent in the step itself
	samples             float64
	values              []float64 // by metric; none where there is no number, or no more of them
}

// bucket sums up the steps from first to last, of which n are known.
type bucket struct {
	first, last, n      int
	seconds, productive float64
	samples             float64
	values              []extent // by metric, likewise
}

// extent sums up the numbers of a metric in a bucket; n is 0 if there is none.
type extent struct {
	n                      int
	least, most, sum, last float64
}

// maxMetrics bounds the metrics of a curve: others are left out.
const maxMetrics = 2 + 2*progress.MaxMetrics

func newCurve() curve { return curve{width: 1, tail: recent[point]{limit: maxTail}} }

// step is the last one that the curve has.
func (c *curve) step() int {
	if p := c.tail.last(); p != nil {
		return p.step
	}
	return 0
}

// add takes the next step. Steps that it has already are skipped: they are equal, however often they are computed.
func (c *curve) add(p point, numbers []progress.Metric) bool {
	if p.step <= c.step() {
		return false
	}
	p.values = c.values(numbers)
	c.tail.add(p)
	b := bucketOf(p)
	if last := len(c.buckets) - 1; last >= 0 && c.place(b) == c.place(c.buckets[last]) {
		c.buckets[last] = merged(c.buckets[last], b)
		return true
	}
	c.buckets = append(c.buckets, b)
	for len(c.buckets) > maxBuckets {
		c.widen()
	}
	return true
}

// values puts numbers into the order of the curve's metrics, which take in new names.
func (c *curve) values(numbers []progress.Metric) []float64 {
	for _, m := range numbers {
		if len(c.metrics) < maxMetrics && !slices.Contains(c.metrics, m.Name) {
			c.metrics = append(c.metrics, m.Name)
			c.merges++ // a browser gets all buckets again
		}
	}
	values := make([]float64, len(c.metrics))
	for i := range values {
		values[i] = none
	}
	for _, m := range numbers {
		if i := slices.Index(c.metrics, m.Name); i >= 0 {
			values[i] = m.Value
		}
	}
	return values
}

// place is the number of the bucket that b belongs to.
func (c *curve) place(b bucket) int { return (b.first - 1) / c.width }

// widen makes buckets twice as wide.
func (c *curve) widen() {
	c.width *= 2
	c.merges++
	wide := c.buckets[:0]
	for _, b := range c.buckets {
		if n := len(wide); n > 0 && c.place(wide[n-1]) == c.place(b) {
			wide[n-1] = merged(wide[n-1], b)
		} else {
			wide = append(wide, b)
		}
	}
	clear(c.buckets[len(wide):])
	c.buckets = wide
}

func bucketOf(p point) bucket {
	b := bucket{first: p.step, last: p.step, n: 1, seconds: p.seconds, productive: p.productive, samples: p.samples}
	for _, v := range p.values {
		x := extent{n: 1, least: v, most: v, sum: v, last: v}
		if math.IsNaN(v) {
			x = extent{}
		}
		b.values = append(b.values, x)
	}
	return b
}

// merged is a, followed by b.
func merged(a, b bucket) bucket {
	a.last, a.n = b.last, a.n+b.n
	a.seconds, a.productive, a.samples = a.seconds+b.seconds, a.productive+b.productive, a.samples+b.samples
	for i, v := range b.values {
		switch {
		case i == len(a.values):
			a.values = append(a.values, v)
		case a.values[i].n == 0:
			a.values[i] = v
		case v.n > 0:
			w := a.values[i]
			a.values[i] = extent{w.n + v.n, min(w.least, v.least), max(w.most, v.most), w.sum + v.sum, v.last}
		}
	}
	return a
}

// curvePart is what a browser lacks of a curve. It drops its buckets from number From on, and appends these.
type curvePart struct {
	Metrics []string     `json:"metrics"`
	From    int          `json:"from"`
	Buckets []bucket     `json:"buckets"`
	Tail    *part[point] `json:"tail,omitempty"`
}

// curveSeen says how much of a curve a browser has.
type curveSeen struct{ merges, buckets, steps int }

func (c *curve) since(seen curveSeen) (*curvePart, curveSeen) {
	tail, steps := c.tail.since(seen.steps)
	now := curveSeen{c.merges, len(c.buckets), steps}
	if tail == nil {
		return nil, now
	}
	from := 0
	if seen.merges == c.merges {
		from = max(0, min(seen.buckets, len(c.buckets))-1) // the last one may have grown
	}
	p := &curvePart{Metrics: slices.Clone(c.metrics), From: from, Tail: tail}
	for _, b := range c.buckets[from:] {
		b.values = append([]extent(nil), b.values...)
		p.Buckets = append(p.Buckets, b)
	}
	return p, now
}

// MarshalJSON writes a row: step, seconds, productive seconds, samples, then the values in full.
func (p point) MarshalJSON() ([]byte, error) {
	b := append([]byte{'['}, strconv.Itoa(p.step)...)
	b = appendShort(b, p.seconds, p.productive, p.samples)
	for _, v := range p.values {
		b = append(b, ',')
		if math.IsNaN(v) || math.IsInf(v, 0) {
			b = append(b, "null"...)
			continue
		}
		full, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		b = append(b, full...)
	}
	return append(b, ']'), nil
}

// MarshalJSON writes a row: first and last step, count, seconds, productive seconds, samples, and of each metric least,
// most, mean and last.
func (b bucket) MarshalJSON() ([]byte, error) {
	row := append([]byte{'['}, strconv.Itoa(b.first)...)
	row = append(append(row, ','), strconv.Itoa(b.last)...)
	row = append(append(row, ','), strconv.Itoa(b.n)...)
	row = appendShort(row, b.seconds, b.productive, b.samples)
	for _, v := range b.values {
		if v.n == 0 {
			row = append(row, ",null,null,null,null"...)
			continue
		}
		row = appendShort(row, v.least, v.most, v.sum/float64(v.n), v.last)
	}
	return append(row, ']'), nil
}

// appendShort writes numbers with six digits, which is more than a picture shows.
func appendShort(b []byte, numbers ...float64) []byte {
	for _, x := range numbers {
		b = append(b, ',')
		if math.IsNaN(x) || math.IsInf(x, 0) {
			b = append(b, "null"...)
			continue
		}
		b = strconv.AppendFloat(b, x, 'g', 6, 64)
	}
	return b
}
