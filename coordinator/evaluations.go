package coordinator

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"evenweave/checkpoint"
	"evenweave/internal/progress"
)

// evaluations is a queue of checkpoints to evaluate, and what the evaluations gave. Safe for concurrent use.
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
		names := a.Holdout // one that was no number is missing
		if len(names) < len(b.Holdout) {
			names = b.Holdout
		}
		for _, f := range names {
			if order := cmp.Compare(merit(b.Holdout, f), merit(a.Holdout, f)); order != 0 {
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

// merit rises as a figure improves; one that is missing, because it was no number, is the worst.
func merit(figures []progress.Figure, of progress.Figure) float64 {
	if value, ok := progress.Find(figures, of.Name); ok {
		return value * float64(of.Better)
	}
	return math.Inf(-1)
}

// waiting returns the steps that still wait for their evaluation, and a channel that is closed when none does.
func (e *evaluations) waiting() (steps []int64, idle <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, q := range e.queue {
		steps = append(steps, q.Step)
	}
	return steps, e.idle
}
