// Package chaos proves elasticity: it trains the same job twice on a local cluster, once calmly and once under faults
// that a seed determines, and compares the bits.
//
//	schedule.go  which fault hits which process, and when (pure)
//	inject.go    signals, cut links, scaling
//	network.go   proxies before workers and etcd, which cut links without privileges
//	watch.go     the members' own reports, followed without the coordinator
//	account.go   recovery times and goodput (pure)
//	result.go    the result of a run, and the differences of two
//	report.go    output as text and JSON
package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"evenweave/internal/local"
	"evenweave/internal/progress"
)

// Config is a run's faults and cluster.
type Config struct {
	Plan    Plan
	Spares  int          // workers besides those of the plan
	Dir     string       // gets the run directories calm/ and chaos/
	Cluster local.Config // of a run; this package sets Dir, Workers, Events, Finished and the hooks
	// Settle waits before each fault until the world has Plan.Workers members again.
	Settle bool
}

// Outcome is the outcome of both runs.
type Outcome struct {
	Calm, Chaos *Result
	// Differences names what is not equal; empty: the proof holds.
	Differences []string
	Account     Account
}

// ErrDiffer says that the two runs gave different bits.
var ErrDiffer = errors.New("the run under faults and the calm run differ")

// Run trains calmly, then under faults, and compares. It shows the schedule first, then every fault and the outcome. An
// error other than ErrDiffer says that a run did not end.
func Run(ctx context.Context, cfg Config, show Observer) (*Outcome, error) {
	faults := cfg.Plan.Schedule()
	if len(faults) == 0 {
		return nil, fmt.Errorf("no fault to inject: the job has %d steps and the kinds of faults are %v; expected at "+
			"least one of each", cfg.Plan.Steps, cfg.Plan.Kinds)
	}
	show.Scheduled(faults)
	out := &Outcome{}
	var err error
	if out.Calm, _, err = cfg.train(ctx, filepath.Join(cfg.Dir, "calm"), nil, show); err != nil {
		return nil, fmt.Errorf("calm run: %w", err)
	}
	var w *watcher
	if out.Chaos, w, err = cfg.train(ctx, filepath.Join(cfg.Dir, "chaos"), faults, show); err != nil {
		return nil, fmt.Errorf("run under faults: %w", err)
	}
	out.Differences = out.Calm.Differences(out.Chaos)
	out.Account = w.timeline().Account()
	show.Compared(out)
	if len(out.Differences) > 0 {
		return out, ErrDiffer
	}
	return out, nil
}

// train runs the job to its end on a new cluster. Without faults it adds nothing to the cluster.
func (cfg *Config) train(ctx context.Context, dir string, faults []Fault, show Observer) (*Result, *watcher, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := newResult()
	c := cfg.Cluster
	c.Dir, c.Workers, c.Finished = dir, cfg.Plan.Workers+cfg.Spares, r.finished
	var observer progress.Observer = r
	if faults == nil { // faults cause warnings
		observer = progress.Multi(r, warnings{show})
	}
	c.Events = func(events io.Reader) error { return progress.Relay(events, observer) }
	var (
		tasks sync.WaitGroup
		w     *watcher
	)
	if faults != nil {
		w = newWatcher()
		net := newNetwork(cfg.Plan.has(Partition))
		defer net.close()
		c.Env, c.Faults = append(c.Env, "EVENWEAVE_FAULTS=1"), true
		c.Started = net.started
		c.Adapt = func(process string, what local.Launch) local.Launch {
			if endpoint := what.Settings["etcd"]; endpoint != "" {
				w.etcd(endpoint)
			}
			return net.adapt(process, what)
		}
		tasks.Go(func() {
			if err := w.run(ctx, cfg.Cluster.Job); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
		in := &injector{cfg: cfg, net: net, watch: w, show: show, workers: cfg.Plan.Workers + cfg.Spares,
			leaving: map[string]bool{}}
		tasks.Go(func() { in.run(ctx, faults) })
	}
	show.Running(dir, faults != nil)
	err := local.Run(ctx, c, nil)
	cancel(nil)
	tasks.Wait()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	if err == nil {
		err = r.collect(dir)
	}
	return r, w, err
}

// warnings passes on the warnings of a run.
type warnings struct{ show Observer }

// Observe implements progress.Observer.
func (w warnings) Observe(r progress.Record) {
	if e, ok := r.Event.(progress.Warning); ok {
		w.show.Warned(e.Message)
	}
}

// Observer is called with what happens, from several goroutines.
type Observer interface {
	Scheduled([]Fault)
	Running(dir string, underFaults bool)
	Warned(message string) // by the calm run, for example of a slower backend
	Injected(Injection)
	Compared(*Outcome)
}

// Injection is a fault that was carried out, or skipped.
type Injection struct {
	Fault
	Time       time.Time
	Targets    []string // member ids, or processes
	Generation int64    // of the world at that time
	At         int64    // steps committed at that time
	Skipped    string   // why it was not carried out
}
