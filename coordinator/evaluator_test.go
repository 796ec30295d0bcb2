package coordinator

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// The best checkpoint is chosen on the held-out samples alone; a restarted coordinator chooses the same from its
// record.
func TestBestIsChosenOnHeldOutSamples(t *testing.T) {
	found := func(accuracy float64) []evenweave.Figure {
		return []evenweave.Figure{{Name: "accuracy", Value: accuracy}}
	}
	held := func(step int, test, accuracy, loss float64) progress.Record {
		return progress.Record{Event: progress.Evaluation{Step: step, Figures: found(test), Holdout: []evenweave.Figure{
			{Name: "accuracy", Value: accuracy, Better: 1}, {Name: "loss", Value: loss, Better: -1}}}}
	}
	e := newEvaluations()
	recall := func(all ...progress.Record) {
		for _, r := range all {
			e.recall(r)
		}
	}
	recall(held(10, 0.99, 0.80, 0.5), held(20, 0.80, 0.90, 0.4), held(30, 0.95, 0.90, 0.3),
		held(40, 0.97, 0.90, 0.3))
	if step, ok := e.best(); !ok || step != 30 {
		t.Errorf("best is step %d, %v; want 30: highest accuracy, then lowest loss, then earliest", step, ok)
	}
	e = newEvaluations()
	// its accuracy was no number
	recall(held(10, 0.9, 0.8, 0.5), progress.Record{Event: progress.Evaluation{Step: 20,
		Holdout: []evenweave.Figure{{Name: "loss", Value: 0.1, Better: -1}}}})
	if step, ok := e.best(); !ok || step != 10 {
		t.Errorf("best is step %d, %v; want 10: step 20 has no accuracy", step, ok)
	}
	e = newEvaluations()
	recall(progress.Record{Event: progress.Evaluation{Step: 10, Figures: found(0.9)}})
	if step, ok := e.best(); ok {
		t.Errorf("best is step %d without held-out samples: the test set may not choose", step)
	}
}

// Of ever so many evaluations the newest and the best are known, in bounded memory, and none is made again.
func TestEvaluationsAreKnownInBoundedMemory(t *testing.T) {
	e := newEvaluations()
	for step := 1; step <= 5*maxResults; step++ {
		e.recall(progress.Record{Event: progress.Evaluation{Step: step, Holdout: []evenweave.Figure{
			{Name: "loss", Value: math.Abs(float64(step - 70)), Better: -1}}}})
	}
	for _, step := range []int64{1, 70, 5 * maxResults} {
		if e.add(checkpoint.Entry{Step: step}); len(e.queue) > 0 {
			t.Fatalf("step %d is evaluated again", step)
		}
	}
	best, _ := e.best()
	_, newest := e.at(5 * maxResults)
	if e.add(checkpoint.Entry{Step: 5*maxResults + 1}); best != 70 || !newest || len(e.queue) != 1 ||
		cap(e.results) > 4*maxResults {
		t.Errorf("best is step %d, the newest known: %v; %d wait, room for %d", best, newest, len(e.queue),
			cap(e.results))
	}
}

// Checkpoints at epochs' ends and at the last step are evaluated, once, and none with --evaluate=false.
func TestEvaluationsAreDueWhereAskedFor(t *testing.T) {
	spec := job.Spec{Samples: 100, GlobalBatch: 10, MicroBatch: 10, Steps: 25}
	for _, on := range []bool{true, false} {
		e := &evaluator{evaluations: newEvaluations()}
		if on {
			e.model = example.NewSoftmax()
		}
		for _, step := range []int64{0, 5, 10, 10, 20, 25} {
			entry := checkpoint.Entry{}
			entry.Step = step
			e.examine(spec, entry)
		}
		steps, _ := e.waiting()
		if on && !slices.Equal(steps, []int64{10, 20, 25}) || !on && len(steps) != 0 {
			t.Errorf("evaluate: %v: steps %v wait for evaluation", on, steps)
		}
	}
}

// An interrupt while the last evaluations of a complete job are still to be made ends it, with what there is.
func TestConcludeMayBeInterrupted(t *testing.T) {
	halt := make(chan struct{})
	seen := &eventLog{}
	c := onADirectory(t, seen)
	c.halt, c.evaluator.model = halt, example.NewSoftmax()
	c.evaluator.add(checkpoint.Entry{Step: 10}) // no evaluator runs
	close(halt)
	if err := c.conclude(t.Context(), checkpoint.Entry{Step: 10}, job.Done{Complete: true}); err != nil {
		t.Fatal(err)
	}
	if d, ok := seen.all[len(seen.all)-1].(progress.Done); !ok || !d.Complete || d.Figures != nil {
		t.Errorf("it reported %+v", seen.all)
	}
}

// Evaluations that wait spare their own checkpoints, and nothing else; where too many wait, the newest and the one
// under way stay, and a warning names what is left out.
func TestWaitingEvaluationsAreBounded(t *testing.T) {
	events := &eventLog{}
	c := onADirectory(t, events)
	c.evaluator.model, c.archive.keep = example.NewSoftmax(), 2
	spec := job.Spec{Samples: 100, GlobalBatch: 10, MicroBatch: 10, Steps: 1000}
	for step := int64(1); step <= 400; step++ {
		if step%5 != 0 {
			continue
		}
		path, err := c.archive.Save(t.Context(), &checkpoint.Manifest{Step: step}, nil, nothing)
		if err != nil {
			t.Fatal(err)
		}
		c.evaluator.examine(spec, checkpoint.Entry{Step: step, Path: path})
		c.archive.prune(t.Context(), 1)
	}
	entries, err := c.archive.List()
	if err != nil {
		t.Fatal(err)
	}
	steps, _ := c.evaluator.waiting()
	if len(steps) != maxQueued || steps[0] != 10 || steps[maxQueued-1] != 400 || slices.Contains(steps, 20) {
		t.Errorf("waiting: %v", steps)
	}
	if len(entries) > maxQueued+2 {
		t.Errorf("%d checkpoints are kept, want the waiting %d and 2", len(entries), maxQueued)
	}
	if w := events.warnings(); len(w) != 40-maxQueued || !strings.Contains(w[0], "step 20 is left out") {
		t.Errorf("reported %q", w)
	}
}

// unmeasured is a model whose evaluation of some data fails.
type unmeasured struct {
	*example.Softmax
	samples int
	how     func() error
}

func (f unmeasured) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	if data.Len() == f.samples {
		return nil, f.how()
	}
	return f.Softmax.Evaluate(ctx, data)
}

// oneState is an archive whose checkpoints all hold one state.
type oneState struct {
	evaluable
	s *state.Sealed
}

func (o oneState) read(context.Context, string) (*state.Sealed, error) { return o.s, nil }

// An evaluation that fails, or panics, ends nothing; the part of the data is named, and the end says how many failed.
func TestFailedEvaluationsAreCounted(t *testing.T) {
	for want, f := range map[string]unmeasured{
		"on the held-out samples: no file":      {samples: 20, how: func() error { return errors.New("no file") }},
		"on the test samples: no file":          {samples: 10, how: func() error { return errors.New("no file") }},
		"on the test samples: panic: no metric": {samples: 10, how: func() error { panic("no metric") }},
	} {
		seen := &eventLog{}
		c := onADirectory(t, seen)
		f.Softmax = example.NewSoftmax()
		layout, err := state.OfJob(f.Tensors())
		if err != nil {
			t.Fatal(err)
		}
		s := state.New(layout, 1000)
		e := c.evaluator
		e.model, e.layout, e.test, e.heldOut = f, layout, example.Points{N: 10}, example.Points{N: 20}
		e.entries = oneState{e.entries, state.Seal(s)}
		entry := checkpoint.Entry{Step: 10}
		e.add(entry)
		ev, details, err := e.evaluate(t.Context(), entry)
		e.report(10, ev, details, err)
		e.finished(ev, err)
		if err := c.conclude(t.Context(), entry, job.Done{Complete: true}); err != nil {
			t.Fatal(err)
		}
		if w := seen.warnings(); len(w) != 2 || !strings.Contains(w[0], want) || !strings.Contains(w[1], "failed: 1") {
			t.Errorf("warnings %q, want one with %q", w, want)
		}
	}
}
