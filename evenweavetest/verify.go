// Package evenweavetest tests a task: whether it computes the same bits every time, so that the number of workers
// changes nothing but the speed.
//
//	func TestExact(t *testing.T) { evenweavetest.Verify(t, task) }
package evenweavetest

import (
	"log/slog"
	"testing"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/schedule"
	"evenweave/internal/verify"
)

// Config says on what Verify tries a task. The zero value will do.
type Config struct {
	Dir        string // of the data, as --data names it
	Backend    string // as --backend names it; "": the first of the task's
	Seed       uint64 // 0: 1
	MicroBatch int    // samples of a micro-batch; 0: 16
	Steps      int    // updates; 0: 2
}

const (
	microBatches = 4 // of a step
	lanes        = 3
)

// Verify builds the task's model twice, trains a few steps with each, and fails the test, naming the first tensor that
// differs, unless every micro-batch has the same gradients when it is computed again, on another lane and by the other
// model, and updates, initial values, reading and writing agree too. `PROGRAM verify` tries other processes as well.
func Verify(t testing.TB, task *evenweave.Task, config ...Config) {
	t.Helper()
	c := Config{}
	if len(config) > 0 {
		c = config[0]
	}
	first := trace(t, task, c)
	if err := verify.Differ(first, trace(t, task, c), "in a second model"); err != nil {
		t.Errorf("evenweave: %v", err)
	}
}

// trace is what one model computes.
func trace(t testing.TB, task *evenweave.Task, c Config) verify.Trace {
	t.Helper()
	sets, err := guard.Data(task, c.Dir)
	if err != nil {
		t.Fatalf("evenweave: data of task %q: %v", task.Name, err)
	}
	plan := schedule.Plan{Seed: max(c.Seed, 1), Samples: sets.Train.Len(), MicroBatch: c.MicroBatch}
	if plan.MicroBatch == 0 {
		plan.MicroBatch = 16
	}
	plan.GlobalBatch = microBatches * plan.MicroBatch
	steps := c.Steps
	if steps == 0 {
		steps = 2
	}
	setup := evenweave.Setup{
		Context: t.Context(), MicroBatch: plan.MicroBatch, Samples: plan.Samples, Seed: plan.Seed,
		TotalSteps: plan.StepsPerEpoch(), Log: slog.New(slog.DiscardHandler),
	}
	if task.Backends.Resolve != nil {
		want := c.Backend
		if names := task.Backends.Names; want == "" && len(names) > 0 {
			want = names[0]
		}
		if setup.Backend, _, err = task.Backends.Resolve(want); err != nil {
			t.Fatalf("evenweave: backend %q: %v", want, err)
		}
	}
	m, err := guard.Model(task, setup)
	if err != nil {
		t.Fatalf("evenweave: model of task %q: %v", task.Name, err)
	}
	defer m.Close()
	if err := verify.Check(m, sets, plan.MicroBatch, true); err != nil {
		t.Fatalf("evenweave: task %q: %v", task.Name, err)
	}
	computed, err := verify.Run(
		t.Context(), m, sets.Train, verify.Options{Plan: plan, Steps: steps, Most: microBatches, Lanes: lanes,
			Metrics: task.Metrics},
	)
	if err != nil {
		t.Fatalf("evenweave: task %q: %v", task.Name, err)
	}
	return computed
}
