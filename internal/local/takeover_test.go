package local_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"evenweave/coordinator"
	"evenweave/internal/progress"
)

// TestCoordinatorGoneAndBack: the steps go on without it; the next one, started after it or standing by from the start,
// misses no due checkpoint, no evaluation and no step of the metrics.
func TestCoordinatorGoneAndBack(t *testing.T) {
	const steps = 1000 // with few enough due states for members to keep all of them
	want := calmRun(t, steps)
	for _, standby := range []bool{false, true} {
		t.Run(fmt.Sprintf("standby %v", standby), func(t *testing.T) {
			endpoint, dir := etcd(t), t.TempDir()
			first := startCoordinator(t, endpoint, dir, spec(steps))
			gone := make(chan struct{}) // the job does not end before the first coordinator has
			half := gated(func(step int64) {
				if step >= steps/2 {
					<-gone
				}
			})
			a, b := startWorker(endpoint, "a", half), startWorker(endpoint, "b", half)
			var second *lead
			if standby {
				await(t, first.events, "the start", anyOf[progress.Start])
				second = startCoordinator(t, endpoint, dir, spec(steps))
			}
			await(t, first.events, "a checkpoint", func(c progress.Checkpoint) bool { return c.Step > 0 })
			first.resign()
			ended(t, "the first coordinator", first.done, nil)
			close(gone)
			if !standby {
				second = startCoordinator(t, endpoint, dir, spec(steps))
			}
			ended(t, "the second coordinator", second.done, nil)
			ended(t, "a", a.done, nil)
			ended(t, "b", b.done, nil)
			d := await(t, second.events, "the end", anyOf[progress.Done])
			if d.WeightsSHA256 != want.WeightsSHA256 || d.Fingerprint != want.Fingerprint || d.Step != steps ||
				d.Figures == nil {
				t.Errorf("ended with %+v, a calm run with %+v", d, want)
			}
			wholeCurve(t, dir, steps)
		})
	}
}

// TestStandbyIsInterrupted: it ends at once, and neither now nor when it might have led is the job stopped.
func TestStandbyIsInterrupted(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	first := startCoordinator(t, endpoint, dir, spec(endless))
	a := startWorker(endpoint, "a", near(first.events))
	await(t, first.events, "the start", anyOf[progress.Start])
	// if it waited for its lease, this test would not end
	second := startCoordinator(t, endpoint, dir, spec(endless), func(c *coordinator.Config) {
		c.Limits.TTL = time.Hour
	})
	close(second.halt)
	ended(t, "the one that stood by", second.done, coordinator.ErrStandby)
	seen := first.lastStep()
	await(t, first.events, "another step", func(s progress.Step) bool { return s.Step > seen })
	close(first.halt)
	ended(t, "the first coordinator", first.done, coordinator.ErrHalted)
	ended(t, "a", a.done, nil)
}

// wholeCurve checks that the metrics hold every step once, in order, and evaluations of epochs' ends alone, each once,
// the last step's among them. A coordinator that is stopped or away while epochs end misses some: workers keep so many
// states and no more.
func wholeCurve(t *testing.T, dir string, steps int) {
	t.Helper()
	last, evaluated := 0, map[int]bool{}
	s := spec(int64(steps))
	for _, r := range recorded(t, dir) {
		switch e := r.Event.(type) {
		case progress.Step:
			if e.Step != last+1 {
				t.Fatalf("metrics: step %d follows step %d", e.Step, last)
			}
			last = e.Step
		case progress.Evaluation:
			if due := s.EpochEnds(int64(e.Step)) || e.Step == steps; evaluated[e.Step] || !due {
				t.Errorf("metrics: an evaluation of step %d, which is due: %v, and there already: %v", e.Step, due,
					evaluated[e.Step])
			}
			evaluated[e.Step] = true
		}
	}
	if last != steps || !evaluated[steps] {
		t.Errorf("metrics end at step %d of %d; the last one is evaluated: %v", last, steps, evaluated[steps])
	}
}

// TestAnotherRunsCurve: a run that begins afresh where another left its metrics has a curve, and an accuracy, of its
// own.
func TestAnotherRunsCurve(t *testing.T) {
	dir := t.TempDir()
	for seed := range uint64(2) {
		if err := os.RemoveAll(filepath.Join(dir, "checkpoints")); err != nil {
			t.Fatal(err)
		}
		s := spec(200)
		s.Seed = seed
		endpoint := etcd(t)
		c, w := startCoordinator(t, endpoint, dir, s), startWorker(endpoint, "w", open)
		ended(t, "coordinator", c.done, nil)
		ended(t, "worker", w.done, nil)
		d := await(t, c.events, "the end", anyOf[progress.Done])
		e := await(t, c.events, "the last evaluation", func(e progress.Evaluation) bool { return e.Step == d.Step })
		if d.Figures == nil || !slices.Equal(d.Figures, e.Figures) {
			t.Errorf("seed %d: evaluated %v, at the end %v", seed, e.Figures, d.Figures)
		}
		wholeCurve(t, dir, 200)
	}
	if old, err := filepath.Glob(filepath.Join(dir, "metrics-before-*.jsonl")); err != nil || len(old) != 1 {
		t.Errorf("the first run's curve is kept in %v, %v", old, err)
	}
}
