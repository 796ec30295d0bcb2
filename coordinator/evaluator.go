package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// evaluator measures the model at durable checkpoints, one after the other, in a goroutine of each term. An evaluation
// that fell due while no coordinator ran is made later.
type evaluator struct {
	*evaluations
	model   evaluated // nil: nothing is evaluated
	layout  *state.Layout
	test    evenweave.Data
	heldOut evenweave.Data // may be nil
	entries evaluable
	events  emitter
	details progress.DetailsObserver // may be nil
	log     *slog.Logger
}

// evaluated is a model that measures itself: the coordinator's own copy of it.
type evaluated interface {
	evenweave.Model
	evenweave.Evaluator
}

// evaluable is the archive as the evaluator uses it.
type evaluable interface {
	List() ([]checkpoint.Entry, error)
	Point(name string, e checkpoint.Entry) error
	read(ctx context.Context, path string) (*state.Sealed, error)
	prune(ctx context.Context, term int64)
}

// start works the queue off in a goroutine of the term until stop is called. stop does not wait for the evaluation
// under way: ended is closed when that is over too.
func (e *evaluator) start(ctx context.Context, term int64) (stop context.CancelFunc, ended <-chan struct{}) {
	ctx, stop = context.WithCancel(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		e.run(ctx, term)
	}()
	return stop, over
}

// maxTries is how often a checkpoint is read to evaluate it, with pauses that grow from 2 s: a disk may fail for a
// moment. What the model's evaluation gives comes again.
const maxTries = 4

// unread is an error of reading a checkpoint.
type unread struct{ error }

func (u unread) Unwrap() error { return u.error }

// run works the queue off until ctx ends.
func (e *evaluator) run(ctx context.Context, term int64) {
	pointed := e.pointAtBest(none) // the process before may have ended between an evaluation and the link
	for tries := 1; ; {
		entry, ok := e.next()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-e.wake:
			}
			continue
		}
		ev, details, err := e.evaluate(ctx, entry)
		if ctx.Err() != nil {
			return
		}
		if errors.As(err, new(unread)) && tries < maxTries {
			pause := time.Second << tries
			e.log.Warn("an evaluation failed, and is tried again", "step", entry.Step, "in", pause, "err", err)
			tries++
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			continue
		}
		tries = 1
		e.report(entry.Step, ev, details, err)
		// after the event: the end of the job waits for the last evaluation and is then reported
		e.finished(ev, err)
		if err != nil {
			continue
		}
		pointed = e.pointAtBest(pointed)
		e.entries.prune(ctx, term)
	}
}

const none = -1 // no step

// pointAtBest makes the link "best" point at the best checkpoint, unless it was pointed at that step. It returns the
// step that the link now points at, as far as is known.
func (e *evaluator) pointAtBest(pointed int64) int64 {
	best, ok := e.best()
	if !ok || best == pointed {
		return pointed
	}
	all, err := e.entries.List()
	if err == nil {
		i := slices.IndexFunc(all, func(c checkpoint.Entry) bool { return c.Step == best })
		if i < 0 {
			err = errors.New("its file is gone")
		} else {
			err = e.entries.Point("best", all[i])
		}
	}
	if err != nil {
		e.log.Warn("the link \"best\" is not made: the next evaluation tries again", "best", best, "err", err)
		return none
	}
	return best
}

// report emits what a step's evaluation found. Details come after their figures, so that no view has details alone.
func (e *evaluator) report(step int64, ev progress.Evaluation, details *progress.Details, err error) {
	if err != nil {
		e.log.Error("evaluation", "step", step, "err", err)
		guard.Log(e.log, err)
		e.events.emit(progress.Warning{Message: fmt.Sprintf("evaluation of step %d failed %d times and is left to the "+
			"next coordinator that leads, for which the checkpoint is kept: %v", step, maxTries, err)})
		return
	}
	e.events.emit(ev)
	if details != nil {
		e.details.ObserveDetails(time.Now(), *details)
	}
}

// evaluate reads a checkpoint and measures it, with what the model has to show, or nil.
func (e *evaluator) evaluate(ctx context.Context, entry checkpoint.Entry) (progress.Evaluation, *progress.Details,
	error) {
	began := time.Now()
	s, err := e.entries.read(ctx, entry.Path)
	if err != nil {
		return progress.Evaluation{}, nil, unread{err}
	}
	if err := e.layout.WriteImage(e.layout.Live(e.model), s.Image); err != nil {
		return progress.Evaluation{}, nil, err
	}
	ev := progress.Evaluation{Step: int(s.Step), Epoch: int(s.Ledger.Epochs())}
	test, details, err := e.measure(ctx, ev.Step, ev.Epoch)
	if err == nil {
		ev.Figures, err = progress.Figures(test)
	}
	if err != nil {
		return ev, nil, fmt.Errorf("on the test samples: %w", err)
	}
	if e.heldOut != nil {
		held, err := e.measureHeldOut(ctx)
		if err == nil {
			ev.Holdout, err = progress.Figures(held)
		}
		if err != nil {
			return ev, nil, fmt.Errorf("on the held-out samples: %w", err)
		}
	}
	ev.Seconds = time.Since(began).Seconds()
	return ev, details, nil
}

func (e *evaluator) measureHeldOut(ctx context.Context) (_ []evenweave.Figure, err error) {
	defer guard.Recover(&err)
	return e.model.Evaluate(ctx, e.heldOut)
}

// examine queues a checkpoint for evaluation if one is due there.
func (e *evaluator) examine(spec job.Spec, entry checkpoint.Entry) {
	if e.model == nil || !spec.EpochEnds(entry.Step) && entry.Step != spec.TotalSteps() {
		return
	}
	for _, step := range e.add(entry) {
		e.events.emit(progress.Warning{Message: fmt.Sprintf("evaluation of step %d is left out: %d newer ones wait; "+
			"evaluating is slower than epochs are", step, maxQueued-1)})
	}
}

// missed queues the evaluations that were due at checkpoints still on disk and never made.
func (e *evaluator) missed(spec job.Spec) {
	entries, err := e.entries.List()
	if err != nil {
		e.log.Warn("looking for missed evaluations", "err", err)
		return
	}
	for _, entry := range slices.Backward(entries) { // the oldest first, as they came
		e.examine(spec, entry)
	}
}

// spared are the steps whose checkpoints are kept: the best one, and those still to be evaluated.
func (e *evaluator) spared() []int64 {
	steps := e.wanted()
	if best, ok := e.best(); ok {
		steps = append(steps, best)
	}
	return steps
}
