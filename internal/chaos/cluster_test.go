package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave"
	"evenweave/coordinator"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/policy"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/worker"
)

// The processes of these tests are this test binary: real etcd, coordinator and workers, on the tiny model of package
// example, so that they start at once and a hundred worlds fit into a minute. `evenweave chaos` does the same with the
// CNN.
const childVariable = "EVENWEAVE_CHAOS_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		goleak.VerifyTestMain(m)
		return
	}
	if err := child(os.Args[1], os.Args[2:], local.Lifeline()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func child(command string, args []string, asked <-chan struct{}) error {
	f := flag.NewFlagSet(command, flag.ExitOnError)
	var (
		steps     = f.Int64("steps", 0, "")
		seed      = f.Uint64("seed", 0, "")
		every     = f.Int64("checkpoint-every", 0, "")
		expect    = f.Int("expect-workers", 0, "")
		limit     = f.Int("max-workers", 8, "")
		etcd      = f.String("etcd", "", "")
		name      = f.String("job", "", "")
		dir       = f.String("dir", "", "")
		id        = f.String("id", "", "")
		seal      = f.String("seal", "", "")
		listen    = f.String("listen", "127.0.0.1:0", "")
		advertise = f.String("advertise", "", "")
		work      = f.Duration("work", 0, "") // that a micro-batch takes
		ttl       = f.Duration("ttl", 5*time.Second, "")
	)
	if err := f.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if command != "worker" {
		local.LeaveToParent()
		asking, cancel := context.WithCancel(ctx)
		go func() { <-asked; cancel() }()
		ctx = asking
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if command == "etcd" {
		return local.ServeEtcd(ctx, *dir, *listen, security.Files{}, os.Stdout)
	}
	over, err := security.For([]string{*etcd}).SealedBy(*seal, *name)
	if err != nil {
		return err
	}
	if command == "worker" {
		return worker.Serve(context.Background(), worker.Config{
			Endpoints: []string{*etcd}, Name: *name, ID: *id, Listen: *listen, Advertise: *advertise, Parallelism: 1,
			Grace: 25 * time.Second, TTL: *ttl, Log: log, Over: over, MetricNames: example.Metrics(),
			Open: func(context.Context, job.Job) (worker.Opened, error) {
				return worker.Opened{Model: slow{example.NewSoftmax(), *work}, Data: example.Points{},
					Numerics: probe.Golden{Hash: "tiny"}}, nil
			},
		}, ctx.Done())
	}
	spec := job.Spec{Task: "softmax", Samples: samples, Seed: *seed, GlobalBatch: 32, MicroBatch: 4, Epochs: 1,
		Steps: *steps}
	return coordinator.Serve(ctx, coordinator.Config{
		Endpoints: []string{*etcd}, Over: over, Listen: *listen, Name: *name, Spec: spec, Backend: "tiny",
		CheckpointEvery: *every, Keep: 1 << 20, Evaluate: true, Dir: *dir, Started: time.Now(), Log: log,
		Limits: policy.Limits{Min: 1, Max: min(*limit, spec.Plan().MicroBatches()), Expect: *expect,
			ExpectFor: 20 * time.Second, TTL: *ttl},
		Observer: progress.NewJSON(os.Stdout), Model: example.NewSoftmax(), Test: example.Points{N: 1000},
		MetricNames: example.Metrics(),
	}, nil)
}

const samples = 800 // an epoch is 25 steps

// slow is the tiny model with the pace of a larger one.
type slow struct {
	*example.Softmax
	work time.Duration
}

func (s slow) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	time.Sleep(s.work) // this is the work
	return s.Softmax.Gradients(b, grads)
}

// processes says how to run this binary as a cluster.
func processes(t testing.TB, seed uint64, steps, every int64, workers, limit int, work time.Duration) local.Config {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var log slog.Handler = slog.DiscardHandler
	return local.Config{
		Executable: executable, Job: "test", Log: slog.New(log), Env: []string{childVariable + "=1"},
		Coordinator: local.Launch{Role: local.Coordinator, Settings: map[string]string{"steps": fmt.Sprint(steps),
			"seed":             fmt.Sprint(seed),
			"checkpoint-every": fmt.Sprint(every), "expect-workers": fmt.Sprint(workers),
			"max-workers": fmt.Sprint(limit)}},
		Worker: local.Launch{Role: local.Worker, Settings: map[string]string{"work": work.String()}},
	}
}
