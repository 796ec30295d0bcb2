package worker

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// buffer is what one step's collective sums over the ranks: the gradients of all micro-batches, quantised, two to a
// word (see exact.Blocks), then the slots below. Each slot but the bounds and the sums is written by exactly one rank
// (the others leave it 0), so its sum is that rank's value.
//
//	bounds     B               of the blocks, over all micro-batches
//	sums       loss, weight    of all micro-batches
//	           metrics    M    likewise, in the order of the task's names
//	coverage   V               1 from the rank that computed the micro-batch
//	verdict    V               1 + index of the first of P gradient elements that is not finite;
//	                           P+1: the loss, P+2: the weight, from P+3 on: the metrics;
//	                           negative: it is finite and beyond what sums hold
//	samples    global batch    1 + dataset index of the sample loaded there; 0 for padding
//	fingerprints 2 a rank      fingerprint of the rank's state
//	times      1 a rank        compute time, nanoseconds
//	changes    1 a rank        1: this rank knows of a newer world
//	skips      1 a rank        how many steps in a row this rank has skipped up to now
type buffer struct {
	words []int64

	gradient     []int64
	bounds       []int64
	sums         []int64 // loss, weight, metrics
	coverage     []int64
	verdict      []int64
	samples      []int64
	fingerprints []int64
	times        []int64
	changes      []int64
	skips        []int64

	blocks     *exact.Blocks
	elements   int // of the gradient
	microBatch int

	slots sync.Mutex           // guards all but gradient and bounds, while lanes add
	parts [addParts]sync.Mutex // parts[i] guards part i of gradient and bounds
}

// addParts is into how many parts the gradient is cut, so that lanes can add at the same time.
const addParts = 16

const (
	sumLoss = iota
	sumWeight
	sumSlots
)

// newBuffer makes the buffer of worlds of up to as many ranks as a step has micro-batches.
func newBuffer(blocks *exact.Blocks, elements, metrics int, plan schedule.Plan) *buffer {
	v := plan.MicroBatches()
	b := &buffer{blocks: blocks, elements: elements, microBatch: plan.MicroBatch}
	b.sums, b.coverage, b.samples = make([]int64, sumSlots+metrics), make([]int64, v), make([]int64, plan.GlobalBatch)
	return b.of(v)
}

// of cuts the buffer's words into the slots of a world of so many ranks. Large memory that is new costs a step as much
// as its sum does, so the words of the world before are used again.
func (b *buffer) of(size int) *buffer {
	metrics, v, samples := len(b.sums), len(b.coverage), len(b.samples)
	n := wordsOf(b.blocks, metrics, v, samples, size)
	if cap(b.words) < n {
		b.words = make([]int64, n)
	}
	b.words = b.words[:n]
	rest := b.words
	take := func(n int) []int64 {
		var s []int64
		s, rest = rest[:n:n], rest[n:]
		return s
	}
	b.gradient, b.bounds, b.sums = take(b.blocks.Words()), take(b.blocks.Count()), take(metrics)
	b.coverage, b.verdict, b.samples = take(v), take(v), take(samples)
	b.fingerprints, b.times, b.changes, b.skips = take(2*size), take(size), take(size), take(size)
	return b
}

func wordsOf(blocks *exact.Blocks, sums, microBatches, samples, size int) int {
	return blocks.Words() + blocks.Count() + sums + 2*microBatches + samples + 5*size
}

// StepBytes is how many bytes a world of so many ranks sums in a step of a model with these tensors and so many
// metrics.
func StepBytes(tensors []evenweave.Tensor, metrics int, plan schedule.Plan, size int) (int, error) {
	layout, err := state.OfJob(tensors)
	if err != nil {
		return 0, fmt.Errorf("the model's state: %w", err)
	}
	return 8 * wordsOf(layout.Blocks(), sumSlots+metrics, plan.MicroBatches(), plan.GlobalBatch, size), nil
}

// give hands the words over to the caller, and takes memory for the next step's; nil: it makes some.
func (b *buffer) give(next []int64) []int64 {
	given := b.words
	if b.words = next; next == nil {
		b.words = make([]int64, len(given), cap(given))
	}
	b.of(len(b.times))
	return given
}

func (b *buffer) reset() { clear(b.words) }

// add adds one micro-batch's results. What cannot be quantised or summed becomes a verdict, which every rank reads. Any
// number of lanes may add at the same time.
func (b *buffer) add(batch *evenweave.Batch, grad []float32, exponents []int32, sums evenweave.Sums) {
	v, n := batch.MicroBatch, len(b.coverage)
	loss, verdict := b.quantised(sums, n)
	if verdict == 0 {
		verdict = int64(b.addGradient(v, grad, exponents, n)) + 1
	}
	b.slots.Lock()
	defer b.slots.Unlock()
	b.coverage[v]++
	for i, s := range batch.Samples {
		b.samples[v*b.microBatch+i] += int64(s) + 1
	}
	if verdict != 0 {
		b.verdict[v] = verdict
		return
	}
	b.sums[sumLoss] += loss
	b.sums[sumWeight] += sums.Weight
	for i, m := range sums.Metrics {
		b.sums[sumSlots+i] += m
	}
}

// quantised returns the loss of one of n micro-batches in quanta, and the verdict on its sums: 0 if they can be added.
func (b *buffer) quantised(sums evenweave.Sums, n int) (loss, verdict int64) {
	if math.IsNaN(sums.Loss) || math.IsInf(sums.Loss, 0) {
		return 0, int64(b.elements+sumLoss) + 1
	}
	loss, ok := exact.Quantise(sums.Loss)
	if !ok {
		loss = exact.Limit(n)
	}
	for i, q := range append([]int64{loss, sums.Weight}, sums.Metrics...) {
		limit := limitOf(i, n)
		if q >= limit || q <= -limit || i == sumWeight && q < 0 {
			return 0, -int64(b.elements+i) - 1
		}
	}
	return loss, 0
}

// addGradient adds the gradient of one of n micro-batches, part by part, and returns the index of its first element
// that is not finite, or -1. Lanes begin with different parts, so that they seldom wait for each other.
func (b *buffer) addGradient(v int, grad []float32, exponents []int32, n int) (bad int) {
	bad = -1
	for i := range addParts {
		part := (v + i) % addParts
		lo, hi := b.blocks.Count()*part/addParts, b.blocks.Count()*(part+1)/addParts
		b.parts[part].Lock()
		first := b.blocks.AccumulateBlocks(lo, hi, b.gradient, b.bounds, grad, exponents, n)
		b.parts[part].Unlock()
		if first >= 0 && (bad < 0 || first < bad) {
			bad = first
		}
	}
	return bad
}

// maxWeight bounds a step's weight, so that a float64 holds it exactly.
const maxWeight = 1 << 53

func (b *buffer) setFingerprint(rank int, f state.Fingerprint) {
	b.fingerprints[2*rank], b.fingerprints[2*rank+1] = f.Hi, f.Lo
}

// agreed reports whether all ranks computed from the same state.
func (b *buffer) agreed() bool {
	for i := 2; i < len(b.fingerprints); i++ {
		if b.fingerprints[i] != b.fingerprints[i-2] {
			return false
		}
	}
	return true
}

// changing reports whether a rank knows of a newer world: all switch after this commit.
func (b *buffer) changing() bool { return slices.Max(b.changes) != 0 }

// skipsInARow is how many steps before this one were skipped. A member that has fetched its state knows of none.
func (b *buffer) skipsInARow() int64 { return slices.Max(b.skips) }

// Verdict is an error that every rank finds in the same buffer. A retry would find it again, so it ends the job.
type Verdict struct{ Message string }

func (v *Verdict) Error() string { return v.Message }

// names gives the verdicts names for places in the buffer.
type names struct {
	element func(int) string // of the gradient
	metrics []string
}

func (n names) verdict(i, elements int) string {
	switch i -= elements; {
	case i < 0:
		return "the gradient of " + n.element(i+elements)
	case i == sumLoss:
		return "the loss"
	case i == sumWeight:
		return "the weight"
	case i-sumSlots < len(n.metrics):
		return "the metric " + n.metrics[i-sumSlots]
	}
	return "a metric"
}

// nonfinite says what of the first micro-batch that has a verdict cannot be summed, and what to do about it.
func (b *buffer) nonfinite(n names) (what, advice string) {
	for v, index := range b.verdict {
		total := len(b.verdict)
		where := fmt.Sprintf("micro-batch %d of %d (%s): ", v, total, b.samplesOf(v))
		switch i := int(-index) - 1 - b.elements; {
		case index > 0:
			return where + n.verdict(int(index)-1, b.elements) + " is not finite", diverged
		case index < 0 && i == sumLoss:
			return fmt.Sprintf("%sthe loss, summed over its samples, is beyond %.0f, the most that %d micro-batches "+
				"may each add", where, exact.Value(exact.Limit(total)), total), tooLarge
		case index < 0:
			return fmt.Sprintf("%s%s is negative or beyond %d, the most that %d micro-batches may each add", where,
				n.verdict(i+b.elements, b.elements), limitOf(i, total), total), theTasks
		}
	}
	return "", ""
}

// samplesOf names the first samples of a micro-batch.
func (b *buffer) samplesOf(v int) string {
	const few = 4
	text, n := "", 0
	for _, s := range b.samples[v*b.microBatch : (v+1)*b.microBatch] {
		if n++; s > 0 && n <= few {
			text += fmt.Sprintf(", %d", s-1)
		}
	}
	if n > few {
		text += ", ..."
	}
	return "samples" + strings.TrimPrefix(text, ",")
}

const (
	diverged = "training has diverged: start again with a lower learning rate, gradient clipping or --on-nonfinite " +
		"skip; if it comes again at this step, look at its samples"
	tooLarge = "if labels are large numbers, divide labels and predictions by their usual size in the loss, which " +
		"should be of the order of 1; else " + diverged
	theTasks = "mend what the task's Gradients returns"
)

// limitOf bounds what one of v micro-batches may add to a sum.
func limitOf(sum, v int) int64 {
	if sum == sumWeight {
		return maxWeight / int64(v)
	}
	return exact.Limit(v)
}

// check says whether each micro-batch was computed exactly once, and whether there is a mean.
func (b *buffer) check(step int64) error {
	for v, n := range b.coverage {
		if n != 1 {
			return &Verdict{fmt.Sprintf("step %d: micro-batch %d of %d was computed %d times instead of once",
				step+1, v, len(b.coverage), n)}
		}
	}
	if weight := b.sums[sumWeight]; weight < 1 && !b.damaged() {
		return &Verdict{fmt.Sprintf("step %d: the weights of all micro-batches sum to %d: there is no mean",
			step+1, weight)}
	}
	return nil
}

// damaged reports whether a micro-batch cannot be summed: the sums are then those of the others.
func (b *buffer) damaged() bool {
	return slices.ContainsFunc(b.verdict, func(index int64) bool { return index != 0 })
}

// means are those of the loss and the metrics; zeros if no micro-batch could be summed.
func (b *buffer) means() (loss float64, metrics []float64) {
	weight := float64(max(b.sums[sumWeight], 1))
	for _, m := range b.sums[sumSlots:] {
		metrics = append(metrics, float64(m)/weight)
	}
	return exact.Value(b.sums[sumLoss]) / weight, metrics
}

// used counts the samples that were loaded, without padding.
func (b *buffer) used() (n int64) {
	for _, s := range b.samples {
		if s > 0 {
			n++
		}
	}
	return n
}

// loaded returns the dataset indices that the ranks loaded, -1 for padding.
func (b *buffer) loaded(dst []int32) []int32 {
	dst = dst[:0]
	for _, s := range b.samples {
		dst = append(dst, int32(s-1))
	}
	return dst
}
