package local_test

import (
	"bytes"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/coordinator"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// few is a spec of steps over epochs of seven steps each, the last one padded.
func few(steps int64) job.Spec {
	s := spec(steps)
	s.Samples = 200
	return s
}

func extending(cfg *coordinator.Config) { cfg.Extend = true }

// TestExtend: a finished job goes on, over an epoch's end, to the bits of one that was that long from the start: with
// workers that waited after the end, also when etcd's data is lost, and after a stop. Every extension is in the record.
func TestExtend(t *testing.T) {
	want := finished(t, etcd(t), t.TempDir(), few(20))
	for name, c := range map[string]struct{ stay, lost bool }{"waiting workers": {true, false},
		"new workers": {false, false}, "etcd lost": {false, true}} {
		t.Run(name, func(t *testing.T) {
			endpoint, dir := etcd(t), t.TempDir()
			first := startCoordinator(t, endpoint, dir, few(10))
			a, b := hire(endpoint, "a", c.stay, open), hire(endpoint, "b", c.stay, open)
			ended(t, "the first coordinator", first.done, nil)
			if !c.stay {
				ended(t, "a", a.done, nil)
				ended(t, "b", b.done, nil)
			}
			if c.lost {
				endpoint = etcd(t)
			}
			refused := startCoordinator(t, endpoint, dir, few(20))
			if err := <-refused.done; err == nil || !contains(err.Error(), "steps: here 20, there 10", "--extend") {
				t.Errorf("without --extend: %v", err)
			}
			second := startCoordinator(t, endpoint, dir, few(20), extending)
			if !c.stay { // not before: they would take the end for theirs
				await(t, second.events, "the start", anyOf[progress.Start])
				a, b = startWorker(endpoint, "c", open), startWorker(endpoint, "d", open)
			}
			ended(t, "the second coordinator", second.done, nil)
			d := await(t, second.events, "the end", anyOf[progress.Done])
			if d.Fingerprint != want.Fingerprint || d.Step != 20 || !d.Complete {
				t.Errorf("ended with %+v, an uninterrupted run with %+v", d, want)
			}
			again := startCoordinator(t, endpoint, dir, few(20)) // what it is now
			ended(t, "a third coordinator", again.done, nil)
			for _, w := range []*hired{a, b} {
				if c.stay {
					close(w.leave)
				}
				ended(t, "a worker", w.done, nil)
			}
			var steps []int
			for _, r := range recorded(t, dir) {
				if s, ok := r.Event.(progress.Step); ok {
					steps = append(steps, s.Step)
				}
			}
			if len(steps) != 20 || steps[0] != 1 || steps[19] != 20 {
				t.Errorf("metrics of steps %v", steps)
			}
		})
	}
}

// TestAnExtendedJobKeepsItsExponents: it goes on with those of its state, not with the zeros of a first step.
func TestAnExtendedJobKeepsItsExponents(t *testing.T) {
	exponents := func(dir string) []byte {
		t.Helper()
		path, err := checkpoint.Find(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		c, err := checkpoint.Load(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.Bytes(state.Exponents)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	endpoint, whole, dir := etcd(t), t.TempDir(), t.TempDir()
	finished(t, etcd(t), whole, few(11))
	finished(t, endpoint, dir, few(10))
	before := exponents(dir)
	extended := startCoordinator(t, endpoint, dir, few(11), extending)
	await(t, extended.events, "the start", anyOf[progress.Start])
	w := startWorker(endpoint, "x", open)
	ended(t, "the coordinator", extended.done, nil)
	ended(t, "its worker", w.done, nil)
	if after := exponents(dir); bytes.Equal(before, make([]byte, len(before))) ||
		!bytes.Equal(after, exponents(whole)) {
		t.Errorf("exponents %v after 10 steps, %v after one more; without a stop %v", before, after, exponents(whole))
	}
}

// TestExtendAStoppedJob: stopped before its end, and extended by the resume.
func TestExtendAStoppedJob(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	first := startCoordinator(t, endpoint, dir, spec(endless))
	w := startWorker(endpoint, "a", near(first.events))
	await(t, first.events, "some steps", func(s progress.Step) bool { return s.Step >= 20 })
	close(first.halt)
	ended(t, "the first coordinator", first.done, coordinator.ErrHalted)
	ended(t, "its worker", w.done, nil)
	second := startCoordinator(t, endpoint, dir, spec(endless+1), extending)
	w = startWorker(endpoint, "b", near(second.events))
	start := await(t, second.events, "the start", anyOf[progress.Start])
	await(t, second.events, "more steps", func(s progress.Step) bool { return s.Step >= start.ResumedFrom+20 })
	if start.Steps != endless+1 || start.ResumedFrom < 20 {
		t.Errorf("%+v", start)
	}
	close(second.halt)
	ended(t, "the second coordinator", second.done, coordinator.ErrHalted)
	ended(t, "its worker", w.done, nil)
}

// planned is a model whose learning rate depends on the length of the job.
type planned struct{ *example.Softmax }

func (planned) Layers() []evenweave.Layer { return nil }
func (planned) Schedule() string          { return "the rate falls to 0 at the last step" }

// TestExtendWithASchedule: where the length changes the result, extending is refused, with the reason.
func TestExtendWithASchedule(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	model := func(cfg *coordinator.Config) { cfg.Model = planned{example.NewSoftmax()} }
	finished(t, endpoint, dir, few(10), model)
	c := startCoordinator(t, endpoint, dir, few(20), model, extending)
	if err := <-c.done; err == nil || !strings.Contains(err.Error(), "the rate falls to 0") {
		t.Errorf("%v", err)
	}
	shorter := startCoordinator(t, endpoint, dir, few(9), extending)
	if err := <-shorter.done; err == nil || !strings.Contains(err.Error(), "steps: here 9, there 10") {
		t.Errorf("a shorter one: %v", err)
	}
	other := few(20)
	other.Seed = 7
	changed := startCoordinator(t, endpoint, dir, other, extending)
	if err := <-changed.done; err == nil ||
		!contains(err.Error(), "seed: here 7, there 1", "steps: here 20, there 10") {
		t.Errorf("another seed: %v", err)
	}
}

// finished runs a job of one worker to its end.
func finished(t *testing.T, endpoint, dir string, s job.Spec, changes ...func(*coordinator.Config)) progress.Done {
	t.Helper()
	c := startCoordinator(t, endpoint, dir, s, changes...)
	w := startWorker(endpoint, "w", open)
	ended(t, "coordinator", c.done, nil)
	ended(t, "worker", w.done, nil)
	return await(t, c.events, "the end", anyOf[progress.Done])
}
