package local_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"evenweave/checkpoint"
	"evenweave/cluster"
	"evenweave/coordinator"
	"evenweave/example"
	"evenweave/job"
	"evenweave/local"
	"evenweave/policy"
	"evenweave/progress"
	"evenweave/schedule"
	"evenweave/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tests of this file run a whole cluster in one process: a real etcd, a coordinator and workers over real gRPC, with the tiny model.

const ttl = 2 * time.Second // the shortest that etcd grants

func address(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// etcd runs until the test ends.
func etcd(t *testing.T) string {
	client, peer := address(t), address(t)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	dir := t.TempDir()
	go func() { done <- local.ServeEtcd(ctx, dir, client, peer) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + client
}

// events keeps what a coordinator tells, and wakes who waits for it.
type events struct {
	mu      sync.Mutex
	all     []progress.Event
	changed chan struct{}
}

func newEvents() *events { return &events{changed: make(chan struct{})} }

// Observe implements progress.Observer.
func (e *events) Observe(r progress.Record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, r.Event)
	close(e.changed)
	e.changed = make(chan struct{})
}

// lastStep is the last step told of.
func (e *events) lastStep() (last int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.all {
		if s, ok := one.(progress.Step); ok {
			last = max(last, s.Step)
		}
	}
	return last
}

// await returns the first event that matches.
func await[E progress.Event](t *testing.T, e *events, what string, match func(E) bool) E {
	t.Helper()
	limit := time.After(90 * time.Second)
	for {
		e.mu.Lock()
		seen, changed := slices.Clone(e.all), e.changed
		e.mu.Unlock()
		for _, one := range seen {
			if found, ok := one.(E); ok && match(found) {
				return found
			}
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("%s has not happened; events: %+v", what, seen)
		}
	}
}

func anyOf[E progress.Event](E) bool { return true }

// judge is the tiny model as a coordinator sees it.
type judge struct{}

func (judge) Initial(uint64) ([]float32, error) {
	return slices.Clone(example.NewSoftmax().State()), nil
}
func (judge) WeightsSHA256(values []float32) string { return fmt.Sprintf("%x", values) }
func (judge) Layers() []progress.Layer              { return nil }
func (judge) Tensors() []checkpoint.Tensor {
	return []checkpoint.Tensor{{Name: "weights", Shape: []int{len(example.NewSoftmax().State())}}}
}
func (judge) Evaluator() (coordinator.Evaluator, error) { return judge{}, nil }
func (judge) Evaluate(_ context.Context, values []float32) (coordinator.Score, *coordinator.Score, error) {
	return coordinator.Score{Accuracy: float64(values[0])}, &coordinator.Score{Accuracy: float64(values[0])}, nil
}

func spec(steps int64) job.Spec {
	return job.Spec{Model: "softmax", Samples: 3000, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1, Steps: steps}
}

// lead runs a coordinator; end stops it like a signal and returns how it ended.
type lead struct {
	*events
	halt   chan struct{}
	resign context.CancelFunc
	done   chan error
}

func startCoordinator(t *testing.T, endpoint, dir string, s job.Spec) *lead {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client, err := cluster.Dial([]string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	out := &lead{events: newEvents(), halt: make(chan struct{}), done: make(chan error, 1)}
	c, err := coordinator.New(coordinator.Config{
		Self: job.Leader{ID: "c", Address: l.Addr().String()}, Name: "test", Spec: s, Backend: "none", CheckpointEvery: 50, Keep: 3, Evaluate: true,
		Limits: policy.Limits{Min: 1, Max: 8, TTL: ttl}, Dir: dir, Started: time.Now(), Model: judge{}, Observer: out.events, Log: slog.New(slog.DiscardHandler),
	}, client)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	c.Serve(server)
	serving := make(chan struct{})
	go func() { defer close(serving); _ = server.Serve(l) }()
	ctx, cancel := context.WithCancel(context.Background())
	out.resign = cancel
	go func() {
		err := c.Run(ctx, out.halt)
		server.Stop()
		<-serving
		out.done <- errors.Join(err, c.Close(), client.Close())
	}()
	return out
}

// hired runs a worker.
type hired struct {
	leave chan struct{}
	kill  context.CancelFunc
	done  chan error
}

func startWorker(endpoint, id string, open func(context.Context, job.Job) (worker.Model, worker.Dataset, string, error)) *hired {
	ctx, kill := context.WithCancel(context.Background())
	h := &hired{leave: make(chan struct{}), kill: kill, done: make(chan error, 1)}
	go func() {
		h.done <- worker.Run(ctx, worker.Config{
			Endpoints: []string{endpoint}, Name: "test", ID: id, Listen: "127.0.0.1:0", Parallelism: 1, Grace: 30 * time.Second, TTL: ttl,
			Open: open, Log: slog.New(slog.DiscardHandler),
		}, h.leave)
	}()
	return h
}

func open(context.Context, job.Job) (worker.Model, worker.Dataset, string, error) {
	return example.NewSoftmax(), example.Points{}, "numerics", nil
}

func ended(t *testing.T, who string, done <-chan error, want error) {
	t.Helper()
	select {
	case err := <-done:
		if !errors.Is(err, want) {
			t.Errorf("%s ended with %v, want %v", who, err, want)
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("%s does not end", who)
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

// TestHaltAndResume: a halted job is saved at its exact step, and goes on to the same bits, also when etcd's data is lost meanwhile.
func TestHaltAndResume(t *testing.T) {
	const steps = 2000
	dir := t.TempDir()
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, dir, spec(steps))
	w := startWorker(endpoint, "a", open)
	await(t, c.events, "step 100", func(s progress.Step) bool { return s.Step >= 100 })
	close(c.halt)
	ended(t, "coordinator", c.done, coordinator.ErrHalted)
	ended(t, "worker", w.done, nil)
	stopped := await(t, c.events, "the end", anyOf[progress.Done])
	if stopped.Complete || stopped.Step < 100 {
		t.Fatalf("halted: %+v", stopped)
	}
	endpoint = etcd(t) // a new one, without the job
	c = startCoordinator(t, endpoint, dir, spec(steps))
	w = startWorker(endpoint, "b", open)
	ended(t, "coordinator", c.done, nil)
	ended(t, "worker", w.done, nil)
	start := await(t, c.events, "the start", anyOf[progress.Start])
	if start.ResumedFrom != stopped.Step {
		t.Errorf("resumed from step %d, halted at step %d", start.ResumedFrom, stopped.Step)
	}
	if got, want := await(t, c.events, "the end", anyOf[progress.Done]), calmRun(t, steps); got.Fingerprint != want.Fingerprint {
		t.Errorf("ended with %s, a calm run with %s", got.Fingerprint, want.Fingerprint)
	}
}

// TestTheLastOneToLeaveIsSaved: when all workers are asked to leave, what they hold reaches the disk before they go.
func TestTheLastOneToLeaveIsSaved(t *testing.T) {
	const steps = 1_000_000
	dir := t.TempDir()
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, dir, spec(steps))
	a, b := startWorker(endpoint, "a", open), startWorker(endpoint, "b", open)
	await(t, c.events, "both in the world", func(w progress.World) bool { return w.Size == 2 })
	await(t, c.events, "step 50", func(s progress.Step) bool { return s.Step >= 50 })
	close(a.leave)
	close(b.leave)
	ended(t, "a", a.done, nil)
	ended(t, "b", b.done, nil)
	c.resign()
	ended(t, "coordinator", c.done, context.Canceled)
	last := c.lastStep()
	store, err := checkpoint.Open(filepath.Join(dir, "checkpoints"), checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	newest, err := store.Latest(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if int(newest.Step) < last {
		t.Errorf("the newest checkpoint is of step %d; step %d had been committed", newest.Step, last)
	}
}

// poisoned gives a gradient that is not a number at one step.
type poisoned struct{ *example.Softmax }

func (p poisoned) Gradients(b *schedule.Batch, grad []float32) (float32, int, error) {
	loss, correct, err := p.Softmax.Gradients(b, grad)
	if b.Step == 20 {
		grad[1] = float32(math.NaN())
	}
	return loss, correct, err
}

// TestVerdictEndsTheJob: a NaN ends coordinator and workers with an error that names it; starting again does not retry it.
func TestVerdictEndsTheJob(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	c := startCoordinator(t, endpoint, dir, spec(100))
	w := startWorker(endpoint, "a", func(context.Context, job.Job) (worker.Model, worker.Dataset, string, error) {
		return poisoned{example.NewSoftmax()}, example.Points{}, "numerics", nil
	})
	for who, done := range map[string]<-chan error{"coordinator": c.done, "worker": w.done} {
		select {
		case err := <-done:
			if err == nil || !contains(err.Error(), "step 21", "class 0, weight 1", "not finite") {
				t.Errorf("%s ended with %v", who, err)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("%s does not end", who)
		}
	}
	again := startCoordinator(t, endpoint, dir, spec(100))
	if err := <-again.done; err == nil || !contains(err.Error(), "failed before", "step 21") {
		t.Errorf("started again it ended with %v", err)
	}
}

// TestOtherNumericsAreRefused: a worker whose probe gives other bits is not admitted, and says both values.
func TestOtherNumericsAreRefused(t *testing.T) {
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, t.TempDir(), spec(1_000_000))
	a := startWorker(endpoint, "a", open)
	await(t, c.events, "a step", anyOf[progress.Step])
	b := startWorker(endpoint, "b", func(context.Context, job.Job) (worker.Model, worker.Dataset, string, error) {
		return example.NewSoftmax(), example.Points{}, "others", nil
	})
	select {
	case err := <-b.done:
		if err == nil || !contains(err.Error(), "others", "numerics") {
			t.Errorf("refused with %v", err)
		}
	case <-time.After(60 * time.Second):
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

// TestUnwritableDirectory: bad places are told before anything runs.
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
