package local_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/coordinator"
	"evenweave/internal/etcdtest"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/policy"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/worker"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(processVariable); text != "" {
		if err := beWorker(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// The tests of this file run a whole cluster in one process: a real etcd, a coordinator and workers over real gRPC,
// with the tiny model.

const (
	// ttl is the lease of coordinators and workers. They give it up when they end; no stall of a loaded machine ends it
	// before. A term that begins afresh waits for the next step of its members, which a test may hold at a gate.
	ttl = 20 * time.Second
	// deadline is how long a test waits for what must happen: only a hang takes so long, however busy the machine is.
	deadline = 3 * time.Minute
)

// etcd runs until the test ends.
func etcd(t *testing.T) string { return etcdtest.Start(t, "").Endpoint() }

// events keeps what a coordinator reports, and wakes what waits for it.
type events struct {
	mu      sync.Mutex
	all     []progress.Event
	last    int // step: where it started, or the last one committed
	changed chan struct{}
	over    chan struct{} // closed when the coordinator has ended
}

func newEvents() *events { return &events{changed: make(chan struct{}), over: make(chan struct{})} }

// Observe implements progress.Observer.
func (e *events) Observe(r progress.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, r.Event)
	switch one := r.Event.(type) {
	case progress.Start:
		e.last = max(e.last, one.ResumedFrom)
	case progress.Step:
		e.last = max(e.last, one.Step)
	}
	close(e.changed)
	e.changed = make(chan struct{})
}

// lastStep is the last step reported.
func (e *events) lastStep() int {
	last, _ := e.step()
	return last
}

// step is the last step reported, and a channel that is closed at the next event.
func (e *events) step() (last int, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.last, e.changed
}

// since are the events from the i-th on, and a channel that is closed at the next one.
func (e *events) since(i int) (more []progress.Event, changed <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all[i:]), e.changed
}

// await returns the first event that matches. It fails when the coordinator ends without it.
func await[E progress.Event](t *testing.T, e *events, what string, match func(E) bool) E {
	t.Helper()
	limit := time.After(deadline)
	for seen, over := 0, false; ; {
		more, changed := e.since(seen)
		seen += len(more)
		for _, one := range more {
			if found, ok := one.(E); ok && match(found) {
				return found
			}
		}
		if over {
			t.Fatalf("the coordinator has ended, and %s has not happened", what)
		}
		select {
		case <-changed:
		case <-e.over:
			over = true
		case <-limit:
			t.Fatalf("%s has not happened; %d events have, the last step is %d", what, seen, e.lastStep())
		}
	}
}

func anyOf[E progress.Event](E) bool { return true }

// together waits for a step of so many workers. A world that is published is not one that trains: its members go on in
// the one before until they see it, and what a test changes then meets them on the way.
func together(t *testing.T, e *events, workers int) {
	t.Helper()
	what := fmt.Sprintf("a step of %d workers", workers)
	await(t, e, what, func(s progress.Step) bool { return s.Workers == workers })
}

// tinyTask is the tiny model as a coordinator uses it: its evaluation of a state is the first weight.
type tinyTask struct{ *example.Softmax }

func (j tinyTask) Evaluate(context.Context, evenweave.Data) ([]evenweave.Figure, error) {
	return []evenweave.Figure{{Name: "accuracy", Value: float64(j.Weights()[0]), Better: evenweave.Higher}}, nil
}

func spec(steps int64) job.Spec {
	return job.Spec{Task: "softmax", Samples: 3000, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1, Steps: steps}
}

// lead runs a coordinator; end stops it like a signal and returns how it ended.
type lead struct {
	*events
	halt   chan struct{}
	resign context.CancelFunc
	done   chan error
}

func startCoordinator(t *testing.T, endpoint, dir string, s job.Spec, changes ...func(*coordinator.Config)) *lead {
	t.Helper()
	out := &lead{events: newEvents(), halt: make(chan struct{}), done: make(chan error, 1)}
	cfg := coordinator.Config{
		Endpoints: []string{endpoint}, Listen: "127.0.0.1:0", Name: "test", Spec: s,
		Backend: "none", CheckpointEvery: 50, Keep: 3, Evaluate: true,
		Limits: policy.Limits{Min: 1, Max: 8, TTL: ttl}, Dir: dir, Started: time.Now(),
		Model: tinyTask{example.NewSoftmax()}, Test: example.Points{N: 1}, HeldOut: example.Points{N: 1},
		MetricNames: example.Metrics(),
		Observer:    out.events, Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	out.resign = cancel
	go func() {
		err := coordinator.Serve(ctx, cfg, out.halt)
		close(out.over)
		out.done <- err
	}()
	return out
}

// hired runs a worker.
type hired struct {
	leave chan struct{}
	kill  context.CancelFunc
	done  chan error
}

func startWorker(endpoint, id string, open func(context.Context, job.Job) (worker.Opened, error)) *hired {
	return hire(endpoint, id, false, open)
}

// hire runs a worker that stays, if it is to, after the end of the job.
func hire(endpoint, id string, stay bool, open func(context.Context, job.Job) (worker.Opened, error),
	changes ...func(*worker.Config)) *hired {
	ctx, kill := context.WithCancel(context.Background())
	h := &hired{leave: make(chan struct{}), kill: kill, done: make(chan error, 1)}
	go func() {
		cfg := worker.Config{
			Endpoints: []string{endpoint}, Name: "test", ID: id, Listen: "127.0.0.1:0", Parallelism: 1,
			Grace: 30 * time.Second, TTL: ttl,
			Stay: stay, Open: open, MetricNames: example.Metrics(), Log: slog.New(slog.DiscardHandler),
		}
		for _, change := range changes {
			change(&cfg)
		}
		h.done <- worker.Serve(ctx, cfg, h.leave)
	}()
	return h
}

func open(context.Context, job.Job) (worker.Opened, error) {
	return worker.Opened{Model: example.NewSoftmax(), Data: example.Points{}, Numerics: golden}, nil
}

// endless is the length of a job that a test stops. The tiny model left alone takes 50,000 steps a second, and diverges
// after 200,000: its workers must stay near the step that the test has seen.
const endless = 1_000_000

// near is a worker's data that keeps the worker within some steps of what a coordinator has reported, until that ends.
func near(e *events) func(context.Context, job.Job) (worker.Opened, error) {
	return gated(func(step int64) {
		const ahead = 50
		for {
			last, changed := e.step()
			if int64(last)+ahead >= step {
				return
			}
			select {
			case <-changed:
			case <-e.over:
				return
			}
		}
	})
}

// golden stands for what the golden probe of the tiny model gives: the sums, a gradient and a tensor.
var golden = probe.Golden{Hash: "numerics", Parts: "AAAABBBBCCCC"}

// gated opens the tiny model with data that wait for a gate before each step.
func gated(gate func(step int64)) func(context.Context, job.Job) (worker.Opened, error) {
	return func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: example.NewSoftmax(), Data: gatedPoints{example.Points{}, gate}, Numerics: golden},
			nil
	}
}

type gatedPoints struct {
	example.Points
	gate func(step int64)
}

func (p gatedPoints) Load(b *evenweave.Batch) error {
	p.gate(b.Step)
	return p.Points.Load(b)
}

func ended(t *testing.T, process string, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("%s ended with %v, want %v", process, err, want)
		}
	case <-time.After(deadline):
		t.Fatalf("%s does not end", process)
	}
}

// calmRun is the end of an undisturbed run of one worker.
func calmRun(t *testing.T, steps int64) progress.Done {
	t.Helper()
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, t.TempDir(), spec(steps))
	w := startWorker(endpoint, "w", open)
	ended(t, "coordinator", c.done, nil)
	ended(t, "worker", w.done, nil)
	return await(t, c.events, "the end", anyOf[progress.Done])
}

// TestHaltAndResume: a halted job is saved at its exact step, and goes on to the same bits, also when etcd's data is
// lost meanwhile.
func TestHaltAndResume(t *testing.T) {
	dir := t.TempDir()
	halted := progress.Done{}
	for _, id := range []string{"a", "b"} {
		endpoint := etcd(t) // the second is a new one, without the job
		c := startCoordinator(t, endpoint, dir, spec(endless))
		w := startWorker(endpoint, id, near(c.events))
		start := await(t, c.events, "the start", anyOf[progress.Start])
		if start.ResumedFrom != halted.Step {
			t.Errorf("started from step %d, halted at step %d", start.ResumedFrom, halted.Step)
		}
		await(t, c.events, "100 steps more", func(s progress.Step) bool { return s.Step >= halted.Step+100 })
		close(c.halt)
		ended(t, "coordinator", c.done, coordinator.ErrHalted)
		ended(t, "worker", w.done, nil)
		stopped := await(t, c.events, "the end", anyOf[progress.Done])
		if stopped.Complete || stopped.Step < halted.Step+100 {
			t.Fatalf("halted: %+v", stopped)
		}
		halted = stopped
	}
	if want := calmRun(t, int64(halted.Step)); halted.Fingerprint != want.Fingerprint {
		t.Errorf("ended with %s, a calm run with %s", halted.Fingerprint, want.Fingerprint)
	}
}

// TestTheLastOneToLeaveIsSaved: when all workers are asked to leave, what they hold reaches the disk before they go.
func TestTheLastOneToLeaveIsSaved(t *testing.T) {
	dir := t.TempDir()
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, dir, spec(endless))
	a, b := startWorker(endpoint, "a", near(c.events)), startWorker(endpoint, "b", near(c.events))
	together(t, c.events, 2)
	await(t, c.events, "step 50", func(s progress.Step) bool { return s.Step >= 50 })
	close(a.leave)
	close(b.leave)
	ended(t, "a", a.done, nil)
	ended(t, "b", b.done, nil)
	c.resign()
	ended(t, "coordinator", c.done, nil)
	last := c.lastStep()
	newest, err := checkpoint.Newest(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if int(newest.Step) < last {
		t.Errorf("the newest checkpoint is of step %d; step %d had been committed", newest.Step, last)
	}
}

// poisoned gives a gradient that is not a number at one step.
type poisoned struct{ *example.Softmax }

func (p poisoned) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, err := p.Softmax.Gradients(b, grads)
	if b.Step == 20 {
		grads[0][1] = float32(math.NaN())
	}
	return sums, err
}

// TestVerdictEndsTheJob: a NaN ends coordinator and workers with an error that names it; starting again does not retry
// it.
func TestVerdictEndsTheJob(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	c := startCoordinator(t, endpoint, dir, spec(100))
	w := startWorker(endpoint, "a", func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: poisoned{example.NewSoftmax()}, Data: example.Points{}, Numerics: golden}, nil
	})
	for process, done := range map[string]<-chan error{"coordinator": c.done, "worker": w.done} {
		select {
		case err := <-done:
			if err == nil || !contains(err.Error(), "step 21", "weights[1]", "not finite") {
				t.Errorf("%s ended with %v", process, err)
			}
		case <-time.After(deadline):
			t.Fatalf("%s does not end", process)
		}
	}
	again := startCoordinator(t, endpoint, dir, spec(100))
	if err := <-again.done; err == nil || !contains(err.Error(), "failed before", "step 21") {
		t.Errorf("started again it ended with %v", err)
	}
}

// TestOtherNumericsAreRefused: a worker whose probe gives other bits is not admitted. It says both values, and what
// differs first.
func TestOtherNumericsAreRefused(t *testing.T) {
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, t.TempDir(), spec(endless))
	a := startWorker(endpoint, "a", near(c.events))
	await(t, c.events, "a step", anyOf[progress.Step])
	b := startWorker(endpoint, "b", func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: example.NewSoftmax(), Data: example.Points{},
			Numerics: probe.Golden{Hash: "others", Parts: "AAAAXXXXYYYY"}}, nil
	})
	select {
	case err := <-b.done:
		if err == nil || !contains(err.Error(), "numerics differ, first in the gradient of ", "others",
			"job's is numerics:") {
			t.Errorf("refused with %v", err)
		}
	case <-time.After(deadline):
		t.Fatal("a worker with other numerics does not end")
	}
	a.kill()
	<-a.done
	c.resign()
	<-c.done
}

func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

// TestUnwritableDirectory: bad places are named before anything runs.
func TestUnwritableDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := local.Run(t.Context(), local.Config{Dir: filepath.Join(file, "run"), Workers: 1}, nil)
	if err == nil || !contains(err.Error(), file, "--dir") {
		t.Errorf("a directory below a file: %v", err)
	}
}
