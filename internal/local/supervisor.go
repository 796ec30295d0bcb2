package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"evenweave/internal/processors"
	"evenweave/internal/regular"
)

// LifelineVariable gives a child the file descriptor that ends when its parent does.
const LifelineVariable = "EVENWEAVE_LIFELINE"

const (
	quickDeath   = 10 * time.Second // a process that ends by itself sooner did not work
	quickDeaths  = 3                // so often in a row, and it is given up
	quickKill    = time.Minute      // as quickDeath, for a process that a signal ends
	quickKills   = 10
	restartPause = 200 * time.Millisecond // doubled with every end in a row
	longestPause = 10 * time.Second
)

// ExitUnfit is the exit code of a worker that cannot keep its state, whatever it is given: it is not started again.
const ExitUnfit = 3

// supervisor starts processes, restarts those that end, and ends them all. One goroutine uses it.
type supervisor struct {
	cfg      Config
	procs    map[string]*process   // those wanted, by name
	live     map[*process]struct{} // running processes, including retiring ones whose name another has
	exits    chan exited
	due      chan *process // those whose pause is over
	closing  chan struct{}
	now      func() time.Time
	after    func(time.Duration) <-chan time.Time
	unfit    map[string]struct{} // quarantined: not started again
	starts   chan func()
	alive    *os.File // children hold the other end
	lifeline *os.File
	readers  sync.WaitGroup
	sockets  string // the directory of the processes' sockets
	workers  int    // wanted now
	halting  bool   // the coordinator was asked to save and end
}

type process struct {
	name   string
	what   Launch
	events func(io.Reader) error
	cmd    *exec.Cmd
	// closed to ask the process to end in good order; nil: it has been, or the process is asked by SIGTERM
	leash   *os.File
	socket  string // of a worker, in the directory of sockets: a killed one leaves it
	logged  int64  // bytes of the log that earlier processes wrote
	started time.Time
	deaths  int  // in a row, by itself
	kills   int  // in a row, by a signal
	paused  bool // to be started when its pause is over
	retire  bool // do not start it again
}

type exited struct {
	p   *process
	err error
}

func newSupervisor(cfg Config) (*supervisor, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	s := &supervisor{cfg: cfg, procs: map[string]*process{}, live: map[*process]struct{}{},
		exits: make(chan exited, 16), due: make(chan *process), closing: make(chan struct{}), now: time.Now,
		after: time.After, unfit: map[string]struct{}{}, starts: make(chan func()), alive: w, lifeline: r}
	go func() { // Linux ends children with the *thread* that started them: all are started by one that stays
		runtime.LockOSThread()
		for start := range s.starts {
			start()
		}
	}()
	return s, nil
}

// keep starts a process under a name and keeps it running.
func (s *supervisor) keep(name string, what Launch, events func(io.Reader) error) {
	p := &process{name: name, what: what, events: events}
	s.procs[name] = p
	s.start(p)
}

func (s *supervisor) start(p *process) {
	if err := s.launch(p); err != nil {
		s.readers.Go(func() { s.exits <- exited{p, err} })
	}
}

func (s *supervisor) launch(p *process) error {
	p.started = s.now() // also of an attempt that fails: it did not live as long as the one before
	log, err := regular.Append(s.logPath(p.name))
	if err != nil {
		return err
	}
	what := p.what
	if i := workerNumber(p.name); i > 0 { // a process that comes back is a new member
		id := fmt.Sprintf("w%d-%s", i, uuid.NewString()[:4])
		p.socket = id + ".sock"
		what = what.With(map[string]string{"id": id, "listen": "unix:" + p.socket})
	}
	if s.cfg.Adapt != nil {
		what = s.cfg.Adapt(p.name, what)
	}
	p.cmd = exec.Command(s.cfg.Executable, what.args()...)
	p.cmd.Env = slices.Concat(os.Environ(), s.cfg.Env, s.gpu(p.name), []string{LifelineVariable + "=3"})
	p.cmd.ExtraFiles = []*os.File{s.lifeline}
	p.cmd.Stderr = log
	if info, err := log.Stat(); err == nil {
		p.logged = info.Size()
	}
	var asking *os.File
	if workerNumber(p.name) == 0 {
		if asking, p.leash, err = os.Pipe(); err != nil {
			_ = log.Close()
			return err
		}
		defer asking.Close()
		p.cmd.Stdin = asking
	}
	p.cmd.SysProcAttr = childAttributes()
	var out io.ReadCloser
	if p.events == nil {
		p.cmd.Stdout = log
	} else if out, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	result := make(chan error)
	s.starts <- func() { result <- processors.Start(p.cmd, s.processors(p.name)) }
	if err := <-result; err != nil {
		_ = log.Close()
		return err
	}
	s.live[p] = struct{}{}
	if s.halting && p.name == "coordinator" { // the one before ended without a last checkpoint
		s.ask(p.name)
	}
	if s.cfg.Started != nil {
		s.cfg.Started(p.name, p.cmd.Process.Pid)
	}
	s.readers.Go(func() {
		defer log.Close()
		if out != nil {
			if err := p.events(out); err != nil {
				fmt.Fprintf(log, "reading its events: %v\n", err)
			}
		}
		s.exits <- exited{p, p.cmd.Wait()}
	})
	return nil
}

// processors are those that a process shall use: each worker its own where there are enough; nil: any.
func (s *supervisor) processors(name string) []int {
	i := workerNumber(name)
	if !s.cfg.Pin || i == 0 || i > s.workers {
		return nil
	}
	return processors.Share(processors.Available(), s.workers, i-1)
}

// workerNumber is the i of "worker-i", from 1; 0 for another process.
func workerNumber(name string) int {
	number, _ := strings.CutPrefix(name, "worker-")
	i, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return i
}

func (s *supervisor) logPath(name string) string {
	return filepath.Join(s.cfg.Dir, "logs", name+".log")
}

// gpu is the environment that shows a worker its GPU.
func (s *supervisor) gpu(name string) []string {
	i, n := workerNumber(name), len(s.cfg.GPUs)
	if i == 0 || n == 0 {
		return nil
	}
	return []string{processors.VisibleGPUs + "=" + s.cfg.GPUs[(i-1)%n]}
}

// scale starts or retires workers until there are n.
func (s *supervisor) scale(n int, worker Launch) {
	s.workers = n
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("worker-%d", i)
		if _, bad := s.unfit[name]; bad {
			s.cfg.Log.Warn("not started again: it was unfit", "process", name)
		} else if p, ok := s.procs[name]; !ok || p.retire {
			s.keep(name, worker, nil)
		} else if p.cmd != nil && p.cmd.Process != nil {
			if err := processors.Bind(p.cmd.Process.Pid, s.processors(name)); err != nil {
				s.cfg.Log.Warn("sharing out the processors again", "process", name, "err", err)
			}
		}
	}
	for name, p := range s.procs {
		if workerNumber(name) > n && !p.retire {
			p.retire = true
			s.signal(name, syscall.SIGTERM)
			if p.paused {
				delete(s.procs, name)
			}
		}
	}
}

func (s *supervisor) signal(name string, sig os.Signal) {
	if p := s.procs[name]; p != nil && p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(sig)
	}
}

// ask makes etcd or the coordinator end in good order. Unlike a signal, it reaches a process that has hardly begun.
func (s *supervisor) ask(name string) {
	if p := s.procs[name]; p != nil && p.leash != nil {
		_ = p.leash.Close()
		p.leash = nil
	}
}

// gone notes that a process has ended.
func (s *supervisor) gone(p *process) {
	delete(s.live, p)
	if p.socket != "" && s.sockets != "" {
		_ = os.Remove(filepath.Join(s.sockets, p.socket))
	}
	if p.leash != nil {
		_ = p.leash.Close()
		p.leash = nil
	}
}

// exited decides what the end of a process means. done: the run is over.
func (s *supervisor) exited(e exited) (done bool, err error) {
	p := e.p
	s.gone(p)
	if s.procs[p.name] != p {
		return false, nil // replaced meanwhile
	}
	signal, code := ending(e.err)
	worker := workerNumber(p.name) > 0
	switch {
	case p.name == "coordinator" && signal == 0 && e.err == nil && s.cfg.Finished():
		delete(s.procs, p.name)
		return true, nil
	case p.name == "coordinator" && code > 0: // else it resigned: the job is to go on
		delete(s.procs, p.name)
		return true, &Exit{Code: code, Tail: s.tail(p)}
	case p.retire || worker && e.err == nil:
		delete(s.procs, p.name)
		return false, nil
	case worker && code == ExitUnfit:
		s.unfit[p.name] = struct{}{}
		return s.giveUp(p, "it is unfit: "+s.tail(p))
	}
	return s.again(p, e.err, signal)
}

// ending is the signal that ended a process, or its exit code; -1 if it could not be started.
func ending(err error) (signal syscall.Signal, code int) {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0, 0
	case !ok:
		return 0, -1
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal(), 0
	}
	return 0, exit.ExitCode()
}

// again starts a process after a pause that grows with the ends in a row, until there were too many.
func (s *supervisor) again(p *process, cause error, signal syscall.Signal) (done bool, err error) {
	lived := s.now().Sub(p.started)
	if lived > quickDeath {
		p.deaths = 0
	}
	if lived > quickKill {
		p.kills = 0
	}
	pause := time.Duration(0)
	if signal == 0 {
		p.deaths++
		pause = min(restartPause<<(p.deaths-1), longestPause)
	} else if !s.cfg.Faults { // there kills are what is wanted
		if p.kills++; p.kills > 1 { // one is a person's, or the kernel's: the work goes on at once
			pause = min(restartPause<<(p.kills-2), longestPause)
		}
	}
	switch {
	case p.deaths >= quickDeaths:
		reason := s.tail(p)
		if _, code := ending(cause); code < 0 { // it never ran
			reason = cause.Error()
		}
		return s.giveUp(p, fmt.Sprintf("failed %d times in a row: %s", p.deaths, reason))
	case p.kills >= quickKills:
		return s.giveUp(p, fmt.Sprintf("ended %d times in a row by %s", p.kills, describeSignal(signal)))
	}
	how := fmt.Sprint(cause)
	if signal != 0 {
		how = describeSignal(signal)
	}
	s.cfg.Log.Warn("starting again", "process", p.name, "after", how)
	if pause == 0 {
		s.start(p)
		return false, nil
	}
	p.paused = true
	s.readers.Go(func() {
		select {
		case <-s.after(pause):
		case <-s.closing:
			return
		}
		select {
		case s.due <- p:
		case <-s.closing:
		}
	})
	return false, nil
}

// resume starts a process whose pause is over, if it is still wanted.
func (s *supervisor) resume(p *process) {
	p.paused = false
	if s.procs[p.name] == p && !p.retire {
		s.start(p)
	}
}

// giveUp does without a process. The run goes on as long as a worker is left, and etcd and the coordinator are.
func (s *supervisor) giveUp(p *process, why string) (done bool, err error) {
	delete(s.procs, p.name)
	why = p.name + " " + why
	if workerNumber(p.name) > 0 {
		for name := range s.procs {
			if workerNumber(name) > 0 {
				s.cfg.Log.Warn("going on without a worker", "process", p.name, "why", why)
				return false, nil
			}
		}
	}
	return true, &Exit{Code: 1, Tail: why}
}

// wind waits for the workers, which go by themselves when the job is done, and then ends etcd.
func (s *supervisor) wind(ctx context.Context) {
	limit := time.After(exitTimeout)
	ended := false
	for len(s.live) > 0 {
		if _, running := s.live[s.procs["etcd"]]; running && !ended && len(s.live) == 1 {
			ended = true
			s.ask("etcd")
		}
		select {
		case e := <-s.exits:
			delete(s.live, e.p)
		case <-limit:
			return // close kills what is left
		case <-ctx.Done():
			return
		}
	}
}

// close kills what is left and waits for it.
func (s *supervisor) close() {
	close(s.closing)
	for p := range s.live {
		_ = p.cmd.Process.Kill()
	}
	drained := make(chan struct{})
	go func() { s.readers.Wait(); close(drained) }()
	for waiting := true; waiting; {
		select {
		case <-s.exits:
		case <-drained:
			waiting = false
		}
	}
	close(s.starts)
	_ = s.alive.Close()
	_ = s.lifeline.Close()
}
