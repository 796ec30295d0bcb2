package worker

import (
	"fmt"

	"evenweave/internal/exact"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// buffer is what one step's collective sums over the ranks: P quantised gradients, then the slots below.
// Each slot but the first three is written by exactly one rank (the others leave it 0), so its sum is that rank's value.
//
//	loss, weight, correct      of all micro-batches
//	coverage   V               1 from the rank that computed the micro-batch
//	verdict    V               1 + index of the first gradient element that is not finite or too large; P+1 for the loss
//	samples    global batch    1 + dataset index of what was loaded into that place; 0 for padding
//	prints     2 a rank        fingerprint of the rank's state
//	times      1 a rank        compute time, nanoseconds
//	changes    1 a rank        1: this rank knows of a newer world
type buffer struct {
	words []int64

	gradient []int64
	sums     []int64
	coverage []int64
	verdict  []int64
	samples  []int64
	prints   []int64
	times    []int64
	changes  []int64

	microBatch int
}

const (
	sumLoss = iota
	sumWeight
	sumCorrect
	sumSlots
)

func newBuffer(parameters int, plan schedule.Plan, size int) *buffer {
	v := plan.MicroBatches()
	b := &buffer{microBatch: plan.MicroBatch}
	b.words = make([]int64, parameters+sumSlots+2*v+plan.GlobalBatch+4*size)
	rest := b.words
	take := func(n int) []int64 {
		var s []int64
		s, rest = rest[:n:n], rest[n:]
		return s
	}
	b.gradient, b.sums = take(parameters), take(sumSlots)
	b.coverage, b.verdict, b.samples = take(v), take(v), take(plan.GlobalBatch)
	b.prints, b.times, b.changes = take(2*size), take(size), take(size)
	return b
}

func (b *buffer) reset() { clear(b.words) }

// add puts one micro-batch's results in. A gradient or loss that cannot be quantised becomes a verdict, which every rank will read.
func (b *buffer) add(batch *schedule.Batch, grad []float32, loss float32, correct int) {
	v := batch.MicroBatch
	b.coverage[v]++
	for i, s := range batch.Samples {
		b.samples[v*b.microBatch+i] += int64(s) + 1
		if s >= 0 {
			b.sums[sumWeight]++
		}
	}
	q, ok := exact.Quantise(float64(loss))
	if limit := exact.Limit(len(b.coverage)); !ok || q >= limit || q <= -limit {
		b.verdict[v] = int64(len(b.gradient)) + 1
		return
	}
	if bad := exact.Accumulate(b.gradient, grad, len(b.coverage)); bad >= 0 {
		b.verdict[v] = int64(bad) + 1
		return
	}
	b.sums[sumLoss] += q
	b.sums[sumCorrect] += int64(correct)
}

func (b *buffer) setPrint(rank int, f state.Fingerprint) {
	b.prints[2*rank], b.prints[2*rank+1] = f.Hi, f.Lo
}

// agreed says whether all ranks computed from the same state.
func (b *buffer) agreed() bool {
	for i := 2; i < len(b.prints); i++ {
		if b.prints[i] != b.prints[i-2] {
			return false
		}
	}
	return true
}

// changing says whether some rank knows of a newer world: all switch after this commit.
func (b *buffer) changing() bool {
	for _, c := range b.changes {
		if c != 0 {
			return true
		}
	}
	return false
}

// Verdict is an error that every rank finds in the same buffer: retrying the step would find it again, so the job ends.
type Verdict struct{ Message string }

func (v *Verdict) Error() string { return v.Message }

// check reads the summed buffer: the verdicts, and whether each micro-batch was computed exactly once.
func (b *buffer) check(step int64, parameterName func(int) string) error {
	for v, index := range b.verdict {
		if index == 0 {
			continue
		}
		what := "the loss"
		if i := int(index) - 1; i < len(b.gradient) {
			what = "the gradient of " + parameterName(i)
		}
		return &Verdict{fmt.Sprintf("step %d, micro-batch %d of %d: %s is not finite or exceeds the fixed-point range: training has diverged; "+
			"resume cannot help, start again with another recipe or seed", step+1, v, len(b.verdict), what)}
	}
	for v, n := range b.coverage {
		if n != 1 {
			return &Verdict{fmt.Sprintf("step %d: micro-batch %d of %d was computed %d times instead of once", step+1, v, len(b.coverage), n)}
		}
	}
	return nil
}

// loaded returns the dataset indices that the ranks loaded, -1 for padding.
func (b *buffer) loaded(dst []int32) []int32 {
	dst = dst[:0]
	for _, s := range b.samples {
		dst = append(dst, int32(s-1))
	}
	return dst
}
