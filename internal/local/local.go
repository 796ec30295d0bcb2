// Package local runs a whole cluster on this machine for `evenweave train`: an embedded etcd, a coordinator and N
// workers, each a process of its own, supervised. No process that it starts outlives it, even if it is killed.
package local

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/security"
)

// Config says what to run. Run adds addresses, ids and the directory to the settings of the processes.
type Config struct {
	Dir         string
	Workers     int
	Executable  string
	Job         string
	Coordinator Launch
	Worker      Launch
	// Events reads the coordinator's standard output until it ends; Finished reports whether they include the job's
	// end.
	Events   func(io.Reader) error
	Finished func() bool
	// Hold, if not nil, is closed when the workers may start. A job that is extended is done until the coordinator has
	// reopened it: workers that start earlier would exit at once.
	Hold <-chan struct{}
	Log  *slog.Logger
	Pin  bool // each worker gets its own processors, if there are enough
	// GPUs are shared out among the workers, one each and then in turn; none: each worker sees what this process does.
	GPUs []string

	// For fault injection; nil: nothing. Adapt may change the settings of a process before each start, Started gets its
	// pid. Both are called from one goroutine.
	Adapt   func(process string, l Launch) Launch
	Started func(process string, pid int)
	Env     []string // added to every process's environment
	Faults  bool     // kills are intended: killed processes start again without a limit
}

// Exit is how the coordinator's process ended the run: 0 done, 130 halted, anything else failed.
type Exit struct {
	Code int
	Tail string // what failed, and why
}

func (e *Exit) Error() string { return e.Tail }

const (
	haltTimeout = 60 * time.Second // for the last checkpoint after an interrupt
	exitTimeout = 10 * time.Second // for a process that was asked to end
	lookEvery   = 2 * time.Second  // whether the directory is still there
)

// Run runs the cluster until its job ends. When interrupt is closed the job is halted after its step and its state
// saved; when ctx ends everything is killed at once. The error is an *Exit when the coordinator decided the end.
func Run(ctx context.Context, cfg Config, interrupt <-chan struct{}) error {
	dir, err := take(cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.close()
	dir.tidy()
	dir.begin()
	err = runIn(ctx, dir, cfg, interrupt)
	if unsaid := dir.end(err); unsaid != nil {
		cfg.Log.Warn("how the run ended is not recorded", "err", unsaid)
	}
	return err
}

func runIn(ctx context.Context, dir directory, cfg Config, interrupt <-chan struct{}) error {
	sockets, err := security.MakeSockets()
	if err != nil {
		return err
	}
	defer security.RemoveSockets(sockets)
	if err := security.KeepSeal(filepath.Join(cfg.Dir, "seal"), cfg.Job, time.Now()); err != nil {
		return fmt.Errorf("the key that seals the run's records: %w", err)
	}
	s, err := newSupervisor(cfg)
	if err != nil {
		return err
	}
	defer s.close()
	s.sockets = sockets

	endpoint := "unix:" + filepath.Join(sockets, "etcd.sock")
	if err := s.startEtcd(ctx, interrupt, endpoint); err != nil {
		return err
	}
	scale, err := watchScale(ctx, endpoint, cfg.Job, cfg.Workers, cfg.Log)
	if err != nil {
		return err
	}
	defer scale.stop()
	// A run that is found can be scaled, and what it is scaled to stays.
	if err := s.awaitEtcd(ctx, interrupt, scale.offered); err != nil {
		return err
	}
	if err := dir.record(Record{PID: os.Getpid(), Etcd: endpoint, Job: cfg.Job}); err != nil {
		return err
	}
	defer dir.forget()

	where := map[string]string{"etcd": endpoint, "job": cfg.Job, "seal": filepath.Join(cfg.Dir, "seal")}
	s.keep("coordinator", cfg.Coordinator.With(where, map[string]string{"dir": cfg.Dir,
		"listen": "unix:coordinator.sock"}), cfg.Events)
	worker := cfg.Worker.With(where)
	hold, wantedNow := cfg.Hold, cfg.Workers
	if hold == nil {
		s.scale(wantedNow, worker)
	}
	var deadline <-chan time.Time
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case wantedNow = <-scale.wanted:
			if hold == nil {
				s.scale(wantedNow, worker)
			}
		case <-hold:
			hold = nil
			s.scale(wantedNow, worker)
		case <-interrupt:
			interrupt, s.halting = nil, true
			deadline = time.After(haltTimeout)
			s.ask("coordinator")
		case p := <-s.due:
			s.resume(p)
		case <-look.C:
			if err := dir.lost(); err != nil {
				cfg.Log.Warn(err.Error())
				look.Stop()
			}
		case <-deadline:
			return fmt.Errorf("no last checkpoint within %v of the interrupt: killed; see %s",
				haltTimeout, filepath.Join(cfg.Dir, "logs"))
		case exit := <-s.exits:
			if done, err := s.exited(exit); done {
				scale.stop() // etcd ends at once only if no client is connected
				s.wind(ctx, err != nil)
				return err
			}
		}
	}
}

// MaxWorkers bounds the workers of one machine.
func MaxWorkers() int { return max(128, 4*runtime.NumCPU()) }

// scaleWatch is what `evenweave scale` asks of a run.
type scaleWatch struct {
	offered <-chan struct{} // closed when etcd has the count with which the run begins
	wanted  <-chan int      // each other count that is set after it
	stop    func()
}

// offerEvery is the wait before the wanted count is published again, if etcd has not taken it.
const offerEvery = 100 * time.Millisecond

// watchScale publishes n as the wanted count and sends each count that `evenweave scale` sets. What an earlier run was
// scaled to does not count.
func watchScale(ctx context.Context, endpoint, name string, n int, log *slog.Logger) (scaleWatch, error) {
	client, err := cluster.Dial([]string{endpoint}, name)
	if err != nil {
		return scaleWatch{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	views, offered, wanted := cluster.NewWatcher(log), make(chan struct{}), make(chan int)
	var running sync.WaitGroup
	running.Go(func() { views.Run(ctx, client) })
	running.Go(func() {
		since := offer(ctx, client, n)
		if since == 0 {
			return
		}
		close(offered)
		for last := n; ; {
			view, changed := views.View()
			asked := view.Workers
			var send chan<- int
			switch {
			case view.Revision < since || asked == last:
			case asked > MaxWorkers():
				last = asked
				log.Warn("a worker count that is too large is ignored", "asked", asked, "most", MaxWorkers())
			default:
				send = wanted
			}
			select {
			case send <- asked:
				last = asked
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	stop := sync.OnceFunc(func() { cancel(); running.Wait(); _ = client.Close() })
	return scaleWatch{offered, wanted, stop}, nil
}

// offer publishes the wanted count until etcd has taken it. It returns the revision that has it, and 0 if ctx is over.
func offer(ctx context.Context, client *cluster.Client, n int) (revision int64) {
	for {
		if revision, err := client.SetWorkers(ctx, n); err == nil {
			return revision
		}
		select {
		case <-time.After(offerEvery):
		case <-ctx.Done():
			return 0
		}
	}
}
