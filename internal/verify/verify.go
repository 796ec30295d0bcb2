// Package verify checks that a task computes the same bits every time. Equal weights for any number of workers depend
// on that.
package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/guard"
	"evenweave/internal/schedule"
)

// Options say how much is checked.
type Options struct {
	Plan  schedule.Plan
	Steps int // updates
	Most  int // micro-batches of each step
	Lanes int // micro-batches computed side by side
	// Metrics are the task's: the model reports as many numbers.
	Metrics []string
}

// Line is the hash of one thing that was computed.
type Line struct {
	What string // "step 2, micro-batch 0: the gradient of conv1/kernel"
	Hash [sha256.Size]byte
}

// Trace is all that was computed, in a fixed order: equal traces come from equal bits.
type Trace []Line

// Remedy is what to do about bits that differ on one machine.
const Remedy = "what is computed may depend on the batch, its Key and the state alone: not on a clock, a random " +
	"number of another kind, the order of a map or an earlier call"

// Differ returns nil if two traces are equal, else an error that names the first line in which they are not.
func Differ(a, b Trace, where string) error {
	for i := range min(len(a), len(b)) {
		if a[i].What != b[i].What {
			return fmt.Errorf("%s is computed once, and %s %s: the model has other tensors there", a[i].What, b[i].What,
				where)
		}
		if a[i].Hash != b[i].Hash {
			return fmt.Errorf("%s differs %s: %x, then %x", a[i].What, where, a[i].Hash[:8], b[i].Hash[:8])
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d things are computed once, and %d %s", len(a), len(b), where)
	}
	return nil
}

// Run trains a few steps and returns what it computed. On the way it computes each micro-batch once more alone and once
// more beside others, reads and writes the state, and tries padding; what differs is an error that names it.
func Run(ctx context.Context, m evenweave.Model, data evenweave.Data, o Options) (Trace, error) {
	r := &run{model: m, data: data, Options: o, sampler: schedule.NewSampler(o.Plan)}
	if err := r.layout(); err != nil {
		return nil, err
	}
	if err := m.Init(o.Plan.Seed); err != nil {
		return nil, fmt.Errorf("Init: %w", err)
	}
	if err := r.state("the initial value of %s"); err != nil {
		return nil, err
	}
	if err := r.padding(); err != nil {
		return nil, err
	}
	for step := range int64(o.Steps) {
		if err := r.step(ctx, step); err != nil {
			return nil, err
		}
	}
	return r.trace, r.rewrite()
}

type run struct {
	model evenweave.Model
	data  evenweave.Data
	Options
	sampler *schedule.Sampler
	tensors []evenweave.Tensor
	summed  []evenweave.Tensor
	trace   Trace

	blocks    *exact.Blocks
	exponents []int32 // of the next step
}

// layout checks what Tensors returns.
func (r *run) layout() error {
	r.tensors = r.model.Tensors()
	named := map[string]bool{}
	for i, t := range r.tensors {
		switch {
		case t.Name == "" || named[t.Name]:
			return fmt.Errorf("tensor %d has the name %q: each needs one of its own", i, t.Name)
		case t.Type.Size() == 0:
			return fmt.Errorf("tensor %s has type %q, which a state cannot hold", t.Name, t.Type)
		case slices.ContainsFunc(t.Shape, func(d int) bool { return d < 1 }):
			return fmt.Errorf("tensor %s has shape %v: each dimension must be at least 1", t.Name, t.Shape)
		case t.Role == evenweave.Trained && i > 0 && r.tensors[i-1].Role != evenweave.Trained:
			return fmt.Errorf("tensor %s is trained and comes after %s, which is not: trained tensors come first",
				t.Name, r.tensors[i-1].Name)
		}
		named[t.Name] = true
		if t.Summed() {
			r.summed = append(r.summed, t)
		}
	}
	if len(r.summed) == 0 {
		return errors.New("no tensor of the model is trained")
	}
	var elements []int
	for _, t := range r.summed {
		elements = append(elements, t.Elements())
	}
	r.blocks = exact.NewBlocks(elements)
	r.exponents = make([]int32, r.blocks.Count())
	return nil
}

// state adds a line for each tensor of the state.
func (r *run) state(what string) error {
	for i, t := range r.tensors {
		b, err := r.read(i)
		if err != nil {
			return err
		}
		r.trace = append(r.trace, Line{fmt.Sprintf(what, t.Name), sha256.Sum256(b)})
	}
	return nil
}

func (r *run) read(i int) ([]byte, error) {
	b := make([]byte, r.tensors[i].Bytes())
	if err := r.model.Read(i, 0, b); err != nil {
		return nil, fmt.Errorf("reading %s: %w", r.tensors[i].Name, err)
	}
	return b, nil
}

// rewrite reads the state in pieces and writes it back: it must stay as it is.
func (r *run) rewrite() error {
	for i, t := range r.tensors {
		whole, err := r.read(i)
		if err != nil {
			return err
		}
		half := len(whole) / 2
		tail := make([]byte, len(whole)-half)
		if err := r.model.Read(i, int64(half), tail); err != nil {
			return fmt.Errorf("reading %s from byte %d: %w", t.Name, half, err)
		}
		if !bytes.Equal(tail, whole[half:]) {
			return fmt.Errorf("%s read from byte %d is not what reading all of it gives", t.Name, half)
		}
		err = errors.Join(r.model.Write(i, int64(half), tail), r.model.Write(i, 0, whole[:half]))
		if err != nil {
			return fmt.Errorf("writing %s: %w", t.Name, err)
		}
		if again, err := r.read(i); err != nil || !bytes.Equal(again, whole) {
			return errors.Join(fmt.Errorf("%s is not what was written to it", t.Name), err)
		}
	}
	return nil
}

// result is what one micro-batch gives.
type result struct {
	sums  evenweave.Sums
	grads [][]float32
}

func (r *run) batch(step int64, v int) *evenweave.Batch {
	b := &evenweave.Batch{
		Samples: make([]int32, r.Plan.MicroBatch), Step: step, MicroBatch: v, Seed: r.Plan.Seed,
		Key: evenweave.Key(r.Plan.Seed, evenweave.PurposeDropout, uint64(step), uint64(v)),
	}
	b.Epoch, _ = r.Plan.Position(step)
	r.sampler.MicroBatch(step, v, b.Samples)
	return b
}

// compute gives the model memory that is full of NaN, because it must overwrite all of it: a worker's memory holds the
// gradients of an earlier micro-batch.
func (r *run) compute(b *evenweave.Batch) (out result, err error) {
	if err := r.load(b); err != nil {
		return out, fmt.Errorf("loading micro-batch %d of step %d: %w", b.MicroBatch, b.Step+1, err)
	}
	for _, t := range r.summed {
		g := make([]float32, t.Elements())
		for i := range g {
			g[i] = float32(math.NaN())
		}
		out.grads = append(out.grads, g)
	}
	out.sums, err = r.gradients(b, out.grads)
	if err != nil {
		return out, fmt.Errorf("gradients of micro-batch %d of step %d: %w", b.MicroBatch, b.Step+1, err)
	}
	if n := len(out.sums.Metrics); n != len(r.Metrics) {
		return out, fmt.Errorf("micro-batch %d of step %d: the model gives %d metrics, Task.Metrics names %d: %q",
			b.MicroBatch, b.Step+1, n, len(r.Metrics), r.Metrics)
	}
	return out, nil
}

func (r *run) load(b *evenweave.Batch) (err error) {
	defer guard.Recover(&err)
	return r.data.Load(b)
}

func (r *run) gradients(b *evenweave.Batch, grads [][]float32) (sums evenweave.Sums, err error) {
	defer guard.Recover(&err)
	return r.model.Gradients(b, grads)
}

// lines hashes a result.
func (r *run) lines(step int64, v int, res result) (t Trace) {
	where := fmt.Sprintf("step %d, micro-batch %d: ", step+1, v)
	sums := binary.LittleEndian.AppendUint64(nil, math.Float64bits(res.sums.Loss))
	for _, n := range append([]int64{res.sums.Weight}, res.sums.Metrics...) {
		sums = binary.LittleEndian.AppendUint64(sums, uint64(n))
	}
	t = append(t, Line{where + "the sum of losses, weights or metrics", sha256.Sum256(sums)})
	for i, g := range res.grads {
		h := sha256.New()
		_ = binary.Write(h, binary.LittleEndian, g) // a hash cannot fail
		t = append(t, Line{where + "the gradient of " + r.summed[i].Name, [sha256.Size]byte(h.Sum(nil))})
	}
	return t
}

// step computes, compares and applies one update.
func (r *run) step(ctx context.Context, step int64) error {
	n := min(r.Plan.MicroBatches(), r.Most)
	results, want := make([]result, n), make([]Trace, n)
	for v := range n {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		b := r.batch(step, v)
		first, err := r.compute(b)
		if err != nil {
			return err
		}
		again, err := r.compute(b) // into the same batch, whose content may be reused
		if err != nil {
			return err
		}
		results[v], want[v] = first, r.lines(step, v, first)
		if err := Differ(want[v], r.lines(step, v, again), "when it is computed again"); err != nil {
			return fmt.Errorf("%w; %s", err, Remedy)
		}
	}
	if err := r.sideBySide(step, want); err != nil {
		return err
	}
	for v := range n {
		r.trace = append(r.trace, want[v]...)
	}
	mean, err := r.mean(step, results)
	if err != nil {
		return fmt.Errorf("step %d: %w", step+1, err)
	}
	if err := r.model.Update(mean, step); err != nil {
		return fmt.Errorf("update of step %d: %w", step+1, err)
	}
	return r.state(fmt.Sprintf("after step %d: %%s", step+1))
}

// sideBySide computes all micro-batches of a step on several lanes, from the last to the first.
func (r *run) sideBySide(step int64, want []Trace) error {
	work := make(chan int, len(want))
	for v := range want {
		work <- len(want) - 1 - v
	}
	close(work)
	errs := make([]error, max(1, r.Lanes))
	var lanes sync.WaitGroup
	for lane := range errs {
		lanes.Go(func() {
			for v := range work {
				res, err := r.compute(r.batch(step, v))
				if err == nil {
					err = Differ(want[v], r.lines(step, v, res), fmt.Sprintf("when it is computed on %d lanes (calls "+
						"side by side must not share memory)", len(errs)))
				}
				errs[lane] = errors.Join(errs[lane], err)
			}
		})
	}
	lanes.Wait()
	return errors.Join(errs...)
}

// mean sums the results exactly, as the ring does.
func (r *run) mean(step int64, results []result) (mean [][]float32, err error) {
	weight := int64(0)
	for _, res := range results {
		weight += res.sums.Weight
	}
	if weight < 1 {
		return nil, fmt.Errorf("its micro-batches have weight %d in all: Sums.Weight counts what is not padding",
			weight)
	}
	flat := make([][]float32, len(results))
	for v, res := range results {
		flat[v] = slices.Concat(res.grads...)
	}
	means := make([]float32, len(flat[0]))
	if v, bad := r.blocks.Step(means, flat, r.exponents, weight, step); bad >= 0 {
		value, at := flat[v][bad], bad
		for i, t := range r.summed {
			if at < t.Elements() {
				return nil, fmt.Errorf("micro-batch %d: the gradient of %s[%d] is %v: not finite, or grown too much "+
					"in one step", v, r.summed[i].Name, at, value)
			}
			at -= t.Elements()
		}
	}
	for _, t := range r.summed {
		mean, means = append(mean, means[:t.Elements()]), means[t.Elements():]
	}
	return mean, nil
}

// padding computes a micro-batch without a sample: it must add nothing.
func (r *run) padding() error {
	b := r.batch(0, 0)
	for i := range b.Samples {
		b.Samples[i] = evenweave.Padding
	}
	res, err := r.compute(b)
	if err != nil {
		return fmt.Errorf("of padding alone: %w", err)
	}
	if res.sums.Weight != 0 || res.sums.Loss != 0 ||
		slices.ContainsFunc(res.sums.Metrics, func(n int64) bool { return n != 0 }) {
		return fmt.Errorf("a micro-batch of padding alone has loss %v, weight %d and metrics %v: expected zeros",
			res.sums.Loss, res.sums.Weight, res.sums.Metrics)
	}
	for i, g := range res.grads {
		if at := slices.IndexFunc(g, func(x float32) bool { return x != 0 }); at >= 0 {
			return fmt.Errorf("a micro-batch of padding alone has the gradient %v for %s[%d]: expected 0; Gradients "+
				"must overwrite every element of grads, which holds an earlier micro-batch's", g[at],
				r.summed[i].Name, at)
		}
	}
	return nil
}
