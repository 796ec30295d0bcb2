package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// evaluations run one after the other in a goroutine of the term, from durable checkpoints only, so that one that was
// due while no coordinator ran is made later.
type evaluations struct {
	mu      sync.Mutex
	queue   []checkpoint.Entry
	results map[int64]progress.Evaluation
	wake    chan struct{}
	idle    chan struct{} // closed while the queue is empty and nothing runs
}

func newEvaluations() *evaluations {
	e := &evaluations{results: map[int64]progress.Evaluation{}, wake: make(chan struct{}, 1), idle: make(chan struct{})}
	close(e.idle)
	return e
}

// recall takes the evaluations that were made before; none runs meanwhile.
func (e *evaluations) recall(earlier []progress.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range earlier {
		if ev, ok := r.Event.(progress.Evaluation); ok {
			e.results[int64(ev.Step)] = ev
		}
	}
	if len(e.queue) == 0 {
		return
	}
	e.queue = slices.DeleteFunc(e.queue, func(q checkpoint.Entry) bool {
		_, done := e.results[q.Step]
		return done
	})
	if len(e.queue) == 0 {
		close(e.idle)
	}
}

// add queues a checkpoint that has not been evaluated yet. Where too many wait, the oldest but the one under way makes
// room.
func (e *evaluations) add(entry checkpoint.Entry) (dropped []int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	step := entry.Step
	if _, done := e.results[step]; done {
		return nil
	}
	for _, q := range e.queue {
		if q.Step == step {
			return nil
		}
	}
	for len(e.queue) >= maxQueued {
		dropped = append(dropped, e.queue[1].Step)
		e.queue = slices.Delete(e.queue, 1, 2)
	}
	if len(e.queue) == 0 {
		e.idle = make(chan struct{})
	}
	e.queue = append(e.queue, entry)
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return dropped
}

// maxQueued bounds the evaluations that wait, and so the checkpoints that are kept for them.
const maxQueued = 16

// next returns the oldest queued checkpoint; finished removes it. One that failed is tried again by the next process
// that leads.
func (e *evaluations) next() (checkpoint.Entry, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return checkpoint.Entry{}, false
	}
	return e.queue[0], true
}

func (e *evaluations) finished(ev progress.Evaluation, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.results[int64(ev.Step)] = ev
	}
	if e.queue = e.queue[1:]; len(e.queue) == 0 {
		close(e.idle)
	}
}

func (e *evaluations) at(step int64) (progress.Evaluation, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ev, ok := e.results[step]
	return ev, ok
}

// best is the step that did best on the held-out samples: by the first figure, then by those after it, then the
// earliest. The test set has no say.
func (e *evaluations) best() (step int64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	better := func(a, b progress.Evaluation) int {
		for i := range min(len(a.Holdout), len(b.Holdout)) {
			x, y := a.Holdout[i], b.Holdout[i]
			if order := cmp.Compare(y.Value*float64(y.Better), x.Value*float64(x.Better)); order != 0 {
				return order
			}
		}
		return cmp.Compare(a.Step, b.Step)
	}
	var top progress.Evaluation
	for _, ev := range e.results {
		if len(ev.Holdout) > 0 && (!ok || better(ev, top) < 0) {
			top, ok = ev, true
		}
	}
	return int64(top.Step), ok
}

// waiting returns the steps that still wait for their evaluation.
func (e *evaluations) waiting() (steps map[int64]bool, idle <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	steps = map[int64]bool{}
	for _, q := range e.queue {
		steps[q.Step] = true
	}
	return steps, e.idle
}

// startEvaluating works the queue off until stop is called, which does not wait for what is under way; evaluated is
// closed after that.
func (c *Coordinator) startEvaluating(ctx context.Context) (stop context.CancelFunc, evaluated <-chan struct{}) {
	ctx, stop = context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		c.evaluate(ctx)
	}()
	return stop, over
}

// evaluate works the queue off until ctx ends.
func (c *Coordinator) evaluate(ctx context.Context) {
	for {
		entry, ok := c.evaluations.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-c.evaluations.wake:
			}
			continue
		}
		ev, err := c.evaluateOne(ctx, entry)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.Log.Error("evaluation", "step", entry.Step, "err", err)
			c.emit(progress.Warning{Message: fmt.Sprintf("evaluation of step %d: %v", entry.Step, err)})
		} else {
			c.emit(ev)
		}
		// after the event: conclude waits for the last evaluation and then reports the end
		c.evaluations.finished(ev, err)
		if err != nil {
			continue
		}
		if best, ok := c.evaluations.best(); ok && best == entry.Step {
			c.store.Point("best", entry)
		}
		c.prune(ctx)
	}
}

func (c *Coordinator) evaluateOne(ctx context.Context, entry checkpoint.Entry) (progress.Evaluation, error) {
	began := time.Now()
	s, err := c.readState(ctx, entry.Path)
	if err != nil {
		return progress.Evaluation{}, err
	}
	if err := c.layout.WriteImage(c.Model, s.Image); err != nil {
		return progress.Evaluation{}, err
	}
	ev := progress.Evaluation{Step: int(s.Step), Epoch: int(s.Ledger.Epochs())}
	model := c.Model.(evenweave.Evaluator) // New says so
	test, err := model.Evaluate(ctx, c.Test)
	if err != nil {
		return ev, err
	}
	ev.Figures = figures(test)
	ev.TestAccuracy, ev.TestLoss = figure(test, "accuracy"), figure(test, "loss")
	if c.HeldOut != nil {
		held, err := model.Evaluate(ctx, c.HeldOut)
		if err != nil {
			return ev, err
		}
		accuracy, loss := figure(held, "accuracy"), figure(held, "loss")
		ev.Holdout, ev.HoldoutAccuracy, ev.HoldoutLoss = figures(held), &accuracy, &loss
	}
	ev.Seconds = time.Since(began).Seconds()
	return ev, nil
}

// figures are a model's figures as events have them. One that is no number, which JSON cannot hold, is left out.
func figures(all []evenweave.Figure) (out []progress.Figure) {
	for _, f := range all {
		if f.Value-f.Value == 0 { // finite
			out = append(out, progress.Figure{Name: job.Clean(f.Name), Value: f.Value, Better: int(f.Better)})
		}
	}
	return out
}

// figure is the value of that name, or 0.
func figure(all []evenweave.Figure, name string) float64 {
	for _, f := range all {
		if f.Name == name && f.Value-f.Value == 0 {
			return f.Value
		}
	}
	return 0
}

// examine queues a checkpoint for evaluation if one is due there.
func (c *Coordinator) examine(spec job.Spec, entry checkpoint.Entry) {
	if c.Evaluate && (spec.EpochEnds(entry.Step) || entry.Step == spec.TotalSteps()) {
		for _, step := range c.evaluations.add(entry) {
			c.emit(progress.Warning{Message: fmt.Sprintf("evaluation of step %d is left out: %d newer ones wait; "+
				"evaluating is slower than epochs are", step, maxQueued-1)})
		}
	}
}

// missed queues the evaluations that were due at checkpoints still on disk and never made.
func (c *Coordinator) missed(spec job.Spec) {
	entries, err := c.store.List()
	if err != nil {
		c.Log.Warn("looking for missed evaluations", "err", err)
		return
	}
	for _, entry := range slices.Backward(entries) { // the oldest first, as they came
		c.examine(spec, entry)
	}
}

// prune keeps the newest checkpoints, the best, and those still to be evaluated.
func (c *Coordinator) prune(ctx context.Context) {
	steps, _ := c.evaluations.waiting()
	spare := slices.Collect(maps.Keys(steps))
	if best, ok := c.evaluations.best(); ok {
		spare = append(spare, best)
	}
	if _, err := c.store.Prune(ctx, c.Keep, spare...); err != nil && ctx.Err() == nil {
		c.Log.Warn("removing old checkpoints", "err", err)
	}
}

// readState reads a checkpoint of this job.
func (c *Coordinator) readState(ctx context.Context, path string) (*state.Sealed, error) {
	_, payload, err := c.store.Read(ctx, path)
	if err != nil {
		return nil, err
	}
	defer payload.Close()
	return state.Read(payload, c.layout, c.Spec.Samples, nil)
}
