// Package local runs a whole cluster on this machine for `evenweave train`: an embedded etcd, a coordinator and N workers, each a process of
// its own, supervised. Nothing it starts outlives it, even when it is killed.
package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"evenweave/cluster"
)

// Config says what to run. Programs are command lines after the executable's name; the supervisor appends addresses and ids.
type Config struct {
	Dir         string
	Workers     int
	Executable  string
	Job         string
	Coordinator []string
	Worker      []string
	// Events reads the coordinator's standard output until it ends; Finished says whether it told of the job's end.
	Events   func(io.Reader) error
	Finished func() bool
	Log      *slog.Logger
	Pin      bool // each worker on processors of its own, where there are enough

	// For fault injection; nil: nothing. Adapt may change the arguments of a process before each start, Started is told its pid.
	// Both are called from one goroutine.
	Adapt   func(process string, args []string) []string
	Started func(process string, pid int)
	Env     []string // added to every process's environment
	Faults  bool     // processes that are killed were to be, and are started again without end
}

// Exit is how the coordinator's process ended the run: 0 done, 130 halted, anything else failed.
type Exit struct {
	Code int
	Tail string // what failed, and why
}

func (e *Exit) Error() string { return fmt.Sprintf("exit code %d: %s", e.Code, e.Tail) }

// Record is what `evenweave status --dir` and its like need to find a running cluster. It lies in DIR/run.json.
type Record struct {
	PID  int    `json:"pid"`
	Etcd string `json:"etcd"`
	Job  string `json:"job"`
}

// lock takes the directory for this process; the lock goes with the process, however that ends.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(f)
		_ = f.Close()
		return nil, fmt.Errorf("run directory %s is in use by a live run (pid %s): stop that one, or choose another --dir", dir, strings.TrimSpace(string(holder)))
	}
	_ = f.Truncate(0)
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return f, err
}

const (
	haltTimeout = 60 * time.Second // for the last checkpoint after an interrupt
	exitTimeout = 10 * time.Second // for a process that was asked to end
)

// Run runs the cluster until its job ends. When interrupt is closed the job is halted after its step and its state saved;
// when ctx ends everything is killed at once. The error is an *Exit when the coordinator decided the end.
func Run(ctx context.Context, cfg Config, interrupt <-chan struct{}) error {
	held, err := lock(cfg.Dir)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "logs"), 0o755); err != nil {
		return err
	}
	s, err := newSupervisor(cfg)
	if err != nil {
		return err
	}
	defer s.close()

	client, peer, err := freePorts()
	if err != nil {
		return err
	}
	endpoint := "http://" + client
	record, _ := json.Marshal(Record{PID: os.Getpid(), Etcd: endpoint, Job: cfg.Job})
	if err := os.WriteFile(filepath.Join(cfg.Dir, "run.json"), record, 0o644); err != nil {
		return err
	}
	defer os.Remove(filepath.Join(cfg.Dir, "run.json"))

	s.keep("etcd", []string{"etcd", "--dir", filepath.Join(cfg.Dir, "etcd"), "--client", client, "--peer", peer}, nil)
	s.keep("coordinator", append(cfg.Coordinator, "--etcd", endpoint, "--job", cfg.Job, "--dir", cfg.Dir), cfg.Events)
	worker := append(cfg.Worker, "--etcd", endpoint, "--job", cfg.Job)
	s.scale(cfg.Workers, worker)

	wanted, stop, err := watchScale(ctx, endpoint, cfg.Job, cfg.Workers, cfg.Log)
	if err != nil {
		return err
	}
	defer stop()
	var deadline <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case n := <-wanted:
			s.scale(n, worker)
		case <-interrupt:
			interrupt, s.halting = nil, true
			deadline = time.After(haltTimeout)
			s.ask("coordinator")
		case p := <-s.due:
			s.resume(p)
		case <-deadline:
			return fmt.Errorf("no last checkpoint within %v of the interrupt: killed; see %s", haltTimeout, filepath.Join(cfg.Dir, "logs"))
		case exit := <-s.exits:
			if done, err := s.exited(exit); done {
				stop() // etcd ends at once only when nobody is connected any more
				s.wind(ctx)
				return err
			}
		}
	}
}

// MaxWorkers is the most that one machine is asked to run.
func MaxWorkers() int { return max(64, 4*runtime.NumCPU()) }

// watchScale offers to scale from n workers, and tells the wanted count whenever `evenweave scale` sets it.
func watchScale(ctx context.Context, endpoint, name string, n int, log *slog.Logger) (<-chan int, func(), error) {
	client, err := cluster.Dial([]string{endpoint}, name)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	board, wanted, done := cluster.NewBoard(log), make(chan int), make(chan struct{})
	running := make(chan struct{})
	go func() { defer close(running); board.Run(ctx, client) }()
	go func() {
		defer close(done)
		last, since := n, int64(0) // what an earlier run was scaled to, before `since`, does not count
		for {
			view, changed := board.View()
			if view.Revision != 0 && since == 0 {
				since, _ = client.SetWorkers(ctx, n) // if etcd is away, at the next change
			}
			if since != 0 && view.Revision >= since && view.Workers != last {
				last = view.Workers
				if last > MaxWorkers() {
					log.Warn("a worker count that is too large is ignored", "asked", last, "most", MaxWorkers())
					continue
				}
				select {
				case wanted <- last:
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	var once sync.Once
	return wanted, func() { once.Do(func() { cancel(); <-done; <-running; _ = client.Close() }) }, nil
}

// freePorts finds two loopback addresses that nobody listens on. They are below the ports that systems give to outgoing connections, so that none
// of those can take etcd's while it is being restarted.
func freePorts() (client, peer string, err error) {
	a, err := listenLow()
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := listenLow()
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}

// listenLow tries ports by chance: other runs choose theirs at the same time, before etcd takes them.
func listenLow() (net.Listener, error) {
	const first, ports = 20000, 12768 // Linux gives 32768 and more
	for range 100 {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(ports))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", "127.0.0.1:0")
}
