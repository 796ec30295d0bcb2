package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/schedule"
)

// errDiverged says that the ranks computed from different states; nothing was applied.
var errDiverged = errors.New("replicas differ")

// commit is the result of a committed step.
type commit struct {
	epoch                         int64
	loss                          float64
	metrics                       []float64 // means, in the order of their names
	samples                       int64
	compute, reduce, wait, update time.Duration
	assignment                    schedule.Assignment
	changing                      bool   // a rank knows of a newer world: leave this one now
	verified                      bool   // a due snapshot became readable
	skipped                       string // what was not finite; the step counts and has changed nothing else
	parts                         Parts
}

// step computes, sums, checks and applies one update. The state changes only in the update, near the end.
func (g *generation) step(ctx context.Context) (commit, error) {
	r, buf, start := g.replica, g.buffer, time.Now()
	c, err := g.reduce(ctx)
	if err != nil {
		return commit{}, err
	}
	c.verified = r.verify(r.expected, g.world.Generation)
	began := time.Now()
	g.report.phase(phaseUpdate)
	c.samples = buf.used()
	c.loss, c.metrics = buf.means()
	c.epoch, _ = r.job.Spec.Plan().Position(r.step)
	g.samples = buf.loaded(g.samples)
	next, gradient, bounds := schedule.Next(g.assignment, buf.times), buf.gradient, buf.bounds
	row := buf.skipsInARow()
	shared := g.share(c) // the buffer may be another one from here on
	if c.skipped != "" {
		err = r.skip(c.epoch, g.samples, row)
	} else {
		g.meanOf(gradient, shared.weight)
		r.blocks.Next(g.exponents, bounds, r.step)
		c.parts.Mean = time.Since(began)
		err = r.update(c.epoch, g.samples, g.mean, g.exponents)
	}
	if err != nil {
		r.updates.sums(nil) // it has led to nothing here
		return commit{}, err
	}
	r.keepDue(g.sealing)
	r.prepare()
	c.update = time.Since(began)
	c.parts.Update = r.updating
	c.parts.Fingerprint += c.update - c.parts.Mean - c.parts.Update
	c.parts.Reduce, c.parts.Wait, c.parts.Step = c.reduce, c.wait, time.Since(start)
	g.assignment = next
	g.stepTimes.saw(c.compute + c.reduce + c.wait + c.update)
	g.shared(shared)
	return c, nil
}

// reduce computes and sums until the sum is exact: with the exponents of the state first. If a bound of the sum is too
// large, which all ranks see alike, the step is computed again with those that the bounds ask for; the state does not
// know of it.
func (g *generation) reduce(ctx context.Context) (c commit, err error) {
	r, buf := g.replica, g.buffer
	g.exponents = append(g.exponents[:0], r.live.Exponents...)
	what := ""
	for range 1 + exact.Repeats {
		if c, err = g.attempt(ctx); err != nil || c.skipped != "" {
			return c, err
		}
		first := r.blocks.Raise(g.exponents, buf.bounds)
		if first < 0 {
			return c, nil
		}
		what = g.names.element(r.blocks.First(first))
		g.log.Info("computing a step again: gradients have outgrown their exponents", "step", r.step+1, "from", what)
		g.observer.Repeated()
	}
	c.skipped, err = g.nonfinite(fmt.Sprintf("the gradient of the block of %s has grown too much in one step, in "+
		"which it was computed %d times", what, 1+exact.Repeats), diverged)
	return c, err
}

// maxSkips is how many steps in a row may be skipped. Without a limit a model with useless weights would go on forever.
const maxSkips = 20

// nonfinite decides what becomes of a step that cannot be applied, by what all ranks read in the buffer: the job ends,
// or the step is skipped.
func (g *generation) nonfinite(what, advice string) (skipped string, err error) {
	row, step := g.buffer.skipsInARow(), g.replica.step+1
	switch {
	case g.replica.job.Spec.OnNonfinite != job.Skip:
		return "", &Verdict{fmt.Sprintf("step %d: %s: %s", step, what, advice)}
	case row >= maxSkips:
		return "", &Verdict{fmt.Sprintf("step %d: %d steps in a row were skipped, and this one cannot be applied "+
			"either: %s: %s", step, row, what, advice)}
	}
	g.log.Warn("a step is skipped", "step", step, "because", what)
	g.report.event("skipped", fmt.Sprintf("step %d: %s", step, what))
	return what, nil
}

// attempt computes, sums and checks once.
func (g *generation) attempt(ctx context.Context) (commit, error) {
	r, buf, began := g.replica, g.buffer, time.Now()
	g.report.phase(phaseCompute)
	buf.reset()
	r.hashed = false
	parts, err := g.compute(ctx)
	if err != nil {
		return commit{}, err
	}
	computed := time.Since(began)
	// A step hashes the state twice: after its update (commit), and here, after it was computed from. Neither is
	// enough. A bit that flips between the two is in the gradients. Without this hash they would be summed; without the
	// first one this one could be compared with the other members' only: a member alone would not notice, and of two
	// neither would know which one is right.
	fingerprint, err := r.fingerprint()
	if err != nil {
		return commit{}, err
	}
	buf.setFingerprint(g.rank, fingerprint)
	buf.times[g.rank] = computed.Nanoseconds()
	buf.skips[g.rank] = r.skips
	if g.newer() {
		buf.changes[g.rank] = 1
	}

	g.report.phase(phaseReduce)
	reducing := time.Now()
	parts.Fingerprint = reducing.Sub(began) - computed
	if err := g.sum(ctx, r.step, buf.words, g.deadlines().Step); err != nil {
		return commit{}, err
	}
	reduced := time.Since(reducing)

	if !buf.agreed() || fingerprint != r.expected { // before any verdict: a damaged replica must not fail the job
		return commit{}, errDiverged
	}
	if err := buf.check(r.step); err != nil {
		return commit{}, err
	}
	c := commit{changing: buf.changing(), compute: computed, assignment: g.assignment, parts: parts}
	c.wait = max(0, min(reduced, time.Duration(slices.Max(buf.times))-computed))
	c.reduce = reduced - c.wait
	if what, advice := buf.nonfinite(g.names); what != "" {
		c.skipped, err = g.nonfinite(what, advice)
	}
	return c, err
}

// compute adds this rank's micro-batches to the buffer, several lanes side by side. Integer sums make their order
// irrelevant.
func (g *generation) compute(ctx context.Context) (Parts, error) {
	r := g.replica
	r.computing.Lock()
	defer r.computing.Unlock()
	lo, hi := g.assignment.Range(g.rank)
	var (
		taking sync.Mutex
		lanes  sync.WaitGroup
	)
	next, working := lo, g.lanes[:min(len(g.lanes), hi-lo)]
	take := func() (v int) { // announces under its lock: what is taken before it is announced would be loaded twice
		taking.Lock()
		defer taking.Unlock()
		if v, next = next, next+1; v < hi {
			g.announce(v+len(working), lo, hi)
		}
		return v
	}
	faults := make([]error, len(working))
	for i, l := range working {
		lanes.Go(func() {
			l.took = Parts{}
			for v := take(); v < hi && ctx.Err() == nil && faults[i] == nil; v = take() {
				faults[i] = l.microBatch(g, v)
			}
		})
	}
	lanes.Wait()
	return meanParts(working), joinDistinct(append(faults, context.Cause(ctx)))
}

// joinDistinct joins errors, of equal ones the first: what is wrong with every micro-batch is said once.
func joinDistinct(all []error) error {
	said := map[string]bool{}
	return errors.Join(slices.DeleteFunc(all, func(err error) bool {
		if err == nil || said[err.Error()] {
			return true
		}
		said[err.Error()] = true
		return false
	})...)
}

// announce says to data that load ahead what a lane will load next, so that reading overlaps with computing: v, or
// beyond this rank's last one that of the next step, if the assignment stays as it is.
func (g *generation) announce(v, lo, hi int) {
	data, ok := g.data.(evenweave.Prefetcher)
	step := g.replica.step
	if v >= hi {
		v, step = lo+v-hi, step+1
	}
	if !ok || v >= hi || step >= g.replica.job.Spec.TotalSteps() {
		return
	}
	b := &evenweave.Batch{Samples: make([]int32, g.replica.job.Spec.MicroBatch)}
	g.replica.name(b, g.sampler, step, v)
	data.Prefetch(b)
}

// name sets all of a batch but its content.
func (r *replica) name(b *evenweave.Batch, sampler *schedule.Sampler, step int64, v int) {
	spec := r.job.Spec
	b.Step, b.MicroBatch, b.Seed = step, v, spec.Seed
	b.Epoch, _ = spec.Plan().Position(step)
	b.Key = evenweave.Key(spec.Seed, evenweave.PurposeDropout, uint64(step), uint64(v))
	sampler.MicroBatch(step, v, b.Samples)
}

// lane is the scratch memory of one micro-batch in flight.
type lane struct {
	batch evenweave.Batch
	flat  []float32
	grads [][]float32 // flat, cut into tensors
	took  Parts
}

// microBatch loads and computes a micro-batch, and adds it to the buffer.
func (l *lane) microBatch(g *generation, v int) error {
	g.replica.name(&l.batch, g.sampler, g.replica.step, v)
	sums, err := l.gradients(g)
	if err == nil && len(sums.Metrics) != len(g.names.metrics) {
		err = fmt.Errorf("the model gives %d metrics, Task.Metrics names %d: %q", len(sums.Metrics),
			len(g.names.metrics), g.names.metrics)
	}
	if err != nil {
		return err
	}
	computed := time.Now()
	g.buffer.add(&l.batch, l.flat, g.exponents, sums)
	g.report.advanced()
	l.took.Quantise += time.Since(computed)
	return nil
}

// gradients is what the task does for a micro-batch, and no more: a panic of this package may leave its locks held.
func (l *lane) gradients(g *generation) (sums evenweave.Sums, err error) {
	defer guard.Recover(&err)
	began := time.Now()
	if err := g.data.Load(&l.batch); err != nil {
		return sums, err
	}
	loaded := time.Now()
	sums, err = g.replica.model.Gradients(&l.batch, l.grads)
	l.took.Load += loaded.Sub(began)
	l.took.Gradients += time.Since(loaded)
	return sums, err
}
