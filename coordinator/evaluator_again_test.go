package coordinator

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// emits keeps events.
type emits struct{ *eventLog }

func (e emits) emit(ev progress.Event) { e.Observe(progress.Record{Event: ev}) }

// folder is an archive in memory: each path is read as often as fails says before it can be.
type folder struct {
	all    []checkpoint.Entry // the newest first
	fails  map[string]int
	reads  []string
	links  []string // that were made
	full   int      // so many links cannot be made
	layout *state.Layout
}

func (f *folder) List() ([]checkpoint.Entry, error) { return f.all, nil }
func (f *folder) Point(name string, e checkpoint.Entry) error {
	if f.full > 0 {
		f.full--
		return syscall.ENOSPC
	}
	f.links = append(f.links, name+" "+e.Path)
	return nil
}
func (f *folder) prune(context.Context, int64) {}
func (f *folder) read(_ context.Context, path string) (*state.Sealed, error) {
	f.reads = append(f.reads, path)
	if f.fails[path]--; f.fails[path] >= 0 {
		return nil, syscall.EIO
	}
	s := state.New(f.layout, 100)
	_, err := fmt.Sscanf(path, "step %d", &s.Step)
	return state.Seal(s), err
}

// epochs is a spec with an epoch each ten steps.
func epochs() job.Spec { return job.Spec{Samples: 100, GlobalBatch: 10, MicroBatch: 10, Steps: 1000} }

// entry is that of a step's file.
func entry(step, term int64) checkpoint.Entry {
	return checkpoint.Entry{Path: fmt.Sprintf("step %d term %d", step, term), Step: step, Term: term}
}

// evaluating is an evaluator of the tiny model.
func evaluating(t *testing.T, f *folder) (*evaluator, *eventLog) {
	t.Helper()
	layout, err := state.NewLayout(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	events := &eventLog{}
	f.layout = layout
	return &evaluator{evaluations: newEvaluations(), model: example.NewSoftmax(), layout: layout,
		test: example.Points{N: 100}, heldOut: example.Points{N: 50}, entries: f, events: emits{events},
		log: slog.New(slog.DiscardHandler)}, events
}

// term evaluates what is queued.
func (e *evaluator) term(t *testing.T) {
	t.Helper()
	stop, ended := e.start(t.Context(), 1)
	_, idle := e.waiting()
	<-idle
	synctest.Wait() // until it waits for more
	stop()
	<-ended
}

// A disk that fails for a moment costs no evaluation. One that fails for longer costs none either: the checkpoint is
// kept, within the bound, and the next term evaluates it.
func TestAnEvaluationIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &folder{fails: map[string]int{"step 10 term 1": maxTries - 1, "step 20 term 1": maxTries}}
		e, events := evaluating(t, f)
		f.all = []checkpoint.Entry{entry(30, 1), entry(20, 1), entry(10, 1)}
		e.missed(epochs())
		e.term(t)
		_, first := e.at(10)
		_, second := e.at(20)
		_, third := e.at(30)
		if !first || second || !third || len(f.reads) != 2*maxTries+1 || !slices.Contains(e.spared(), 20) {
			t.Fatalf("evaluated: %v, %v, %v; spared %v, read %q", first, second, third, e.spared(), f.reads)
		}
		if w := events.warnings(); len(w) != 1 || !strings.Contains(w[0], "step 20 failed 4 times") {
			t.Errorf("reported %q", w)
		}
		e.missed(epochs())
		e.term(t)
		if _, second := e.at(20); !second || slices.Contains(e.spared(), 20) {
			t.Errorf("evaluated: %v, spared %v", second, e.spared())
		}
		for step := int64(40); step <= 400; step += 10 {
			f.fails[entry(step, 1).Path] = maxTries
			e.examine(epochs(), entry(step, 1))
			e.term(t)
		}
		if spared := e.spared(); len(spared) != maxQueued+1 || !slices.Contains(spared, 400) {
			t.Errorf("spared: %v", spared)
		}
	})
}

// Of two files of a step, that of the higher term counts: the other may be damaged, or what a paused leader wrote.
func TestTheHigherTermIsEvaluated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &folder{fails: map[string]int{"step 10 term 1": 100}}
		e, _ := evaluating(t, f)
		f.all = []checkpoint.Entry{entry(10, 2), entry(10, 1)}
		e.missed(epochs())
		e.term(t)
		if _, there := e.at(10); !there || !slices.Equal(f.reads, []string{"step 10 term 2"}) {
			t.Errorf("read %q, evaluated: %v", f.reads, there)
		}
	})
}

// The link "best" is made in each term, and as long as it cannot be made: a process may have died before it was.
func TestTheLinkToTheBestIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &folder{full: 1, fails: map[string]int{}}
		e, _ := evaluating(t, f)
		f.all = []checkpoint.Entry{entry(30, 2), entry(20, 2), entry(10, 2), entry(10, 1)}
		e.recall(progress.Record{Event: progress.Evaluation{Step: 10, Holdout: []evenweave.Figure{
			{Name: "accuracy", Value: 1, Better: evenweave.Higher}}}}) // better than a model of zeros
		e.missed(epochs())
		e.term(t)
		if !slices.Equal(f.links, []string{"best step 10 term 2"}) {
			t.Errorf("links after a term: %q", f.links)
		}
		e.term(t)
		if len(f.links) != 2 {
			t.Errorf("links after two terms: %q", f.links)
		}
	})
}
