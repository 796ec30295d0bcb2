package coordinator

import (
	"cmp"
	"errors"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"sync"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/progress"
)

// evaluations is a queue of checkpoints to evaluate, and what the evaluations gave. Safe for concurrent use.
type evaluations struct {
	mu      sync.Mutex
	queue   []checkpoint.Entry
	failed  []int64               // the newest steps whose evaluation was given up
	results []progress.Evaluation // of the newest steps, sorted
	top     *progress.Evaluation  // the best of all on the held-out samples; nil: there is none
	wake    chan struct{}
	idle    chan struct{} // closed while the queue is empty and nothing runs
}

func newEvaluations() *evaluations {
	e := &evaluations{wake: make(chan struct{}, 1), idle: make(chan struct{})}
	close(e.idle)
	return e
}

// recall takes an evaluation that was made before; none runs meanwhile.
func (e *evaluations) recall(r progress.Record) {
	ev, ok := r.Event.(progress.Evaluation)
	if !ok {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.keep(ev)
	before := len(e.queue)
	e.queue = slices.DeleteFunc(e.queue, func(q checkpoint.Entry) bool { return q.Step == int64(ev.Step) })
	if before > 0 && len(e.queue) == 0 {
		close(e.idle)
	}
}

// maxResults bounds the evaluations that are known; those of older steps are not made again.
const maxResults = 1024

// keep takes a result. e.mu is held.
func (e *evaluations) keep(ev progress.Evaluation) {
	e.failed = slices.DeleteFunc(e.failed, func(step int64) bool { return step == int64(ev.Step) })
	if len(ev.Holdout) > 0 && (e.top == nil || better(ev, *e.top) < 0) {
		e.top = &ev
	}
	i, there := e.find(int64(ev.Step))
	if there {
		e.results[i] = ev
		return
	}
	e.results = slices.Insert(e.results, i, ev)
	e.results = e.results[max(0, len(e.results)-maxResults):]
}

// find returns the place of a step's result, and whether there is one. e.mu is held.
func (e *evaluations) find(step int64) (at int, there bool) {
	return slices.BinarySearchFunc(e.results, step, func(ev progress.Evaluation, step int64) int {
		return cmp.Compare(int64(ev.Step), step)
	})
}

// add queues a checkpoint that has not been evaluated yet; of two of a step, that of the higher term. Where too many
// wait, the oldest but the one under way makes room.
func (e *evaluations) add(entry checkpoint.Entry) (dropped []int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	step := entry.Step
	if i, done := e.find(step); done || i == 0 && len(e.results) == maxResults {
		return nil
	}
	for i, q := range e.queue {
		if q.Step == step {
			if entry.Term > q.Term {
				e.queue[i] = entry
			}
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

// failures is how many evaluations were given up: maxQueued of them at most are counted.
func (e *evaluations) failures() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.failed)
}

// maxQueued bounds the evaluations that wait, and so the checkpoints that are kept for them.
const maxQueued = 16

// next returns the oldest queued checkpoint; finished removes it. One that failed is kept, as far as maxQueued allows,
// and tried again in the next term.
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
		e.keep(ev)
	} else if step := e.queue[0].Step; !slices.Contains(e.failed, step) {
		e.failed = append(e.failed, step)
		e.failed = e.failed[max(0, len(e.failed)-maxQueued):]
	}
	if e.queue = e.queue[1:]; len(e.queue) == 0 {
		close(e.idle)
	}
}

func (e *evaluations) at(step int64) (progress.Evaluation, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i, there := e.find(step); there {
		return e.results[i], true
	}
	return progress.Evaluation{}, false
}

// wanted are the steps whose checkpoints evaluations still need: those that wait, and those that failed.
func (e *evaluations) wanted() []int64 {
	steps, _ := e.waiting()
	e.mu.Lock()
	defer e.mu.Unlock()
	return append(steps, e.failed...)
}

// best is the step that did best on the held-out samples: by the first figure, then by those after it, then the
// earliest. The test set does not count.
func (e *evaluations) best() (step int64, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.top == nil {
		return 0, false
	}
	return int64(e.top.Step), true
}

// Best is the step that did best on held-out samples, as the record of a run directory says, and whether there is one.
func Best(dir string) (step int64, ok bool, err error) {
	e := newEvaluations()
	if _, err := progress.ReadMetrics(filepath.Join(dir, metricsFile), e.recall); err != nil &&
		!errors.Is(err, fs.ErrNotExist) {
		return 0, false, err
	}
	step, ok = e.best()
	return step, ok, nil
}

// better orders evaluations: the better one first.
func better(a, b progress.Evaluation) int {
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

// merit rises as a figure improves; one that is missing, because it was no number, is the worst.
func merit(figures []evenweave.Figure, of evenweave.Figure) float64 {
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
