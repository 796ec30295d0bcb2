package local

import (
	"context"
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

// lifelineVariable gives a child the file descriptor that ends when its parent does.
const lifelineVariable = "EVENWEAVE_LIFELINE"

// supervisor starts processes, replaces those that end (restart.go), and ends them all. One goroutine uses it.
type supervisor struct {
	cfg      Config
	procs    map[string]*process   // the wanted processes, by name
	live     map[*process]struct{} // running processes; a retiring one is here even if its name has a new process
	exits    chan exited
	due      chan *process // processes whose pause before a restart is over
	closing  chan struct{}
	now      func() time.Time
	after    func(time.Duration) <-chan time.Time
	unfit    map[string]struct{} // quarantined: not started again
	starts   chan func()
	alive    *os.File // the lifeline's other end, which closes when this process ends
	lifeline *os.File
	readers  sync.WaitGroup
	sockets  string // the directory of the processes' sockets
	workers  int    // how many are wanted now
	halting  bool   // the coordinator was asked to save and end
}

type process struct {
	name   string
	what   Launch
	events func(io.Reader) error
	cmd    *exec.Cmd
	// closing it asks the process to end in good order; nil: it is closed, or the process is a worker (SIGTERM asks it)
	leash   *os.File
	socket  string // of a worker, in the directory of sockets; removed here, as a killed worker leaves it
	logged  int64  // bytes of the log that earlier processes wrote
	started time.Time
	deaths  int    // how often in a row it ended by itself soon after its start
	kills   int    // how often in a row a signal ended it soon after its start
	ended   string // how it ended the last time
	paused  bool   // it starts again when its pause is over
	retire  bool   // it does not start again
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
	go func() { // Linux ends children with the thread that started them, so one thread, which stays, starts all
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
	p.started = s.now() // before anything can fail: a failed start counts as a short life
	log, err := regular.Append(s.logPath(p.name))
	if err != nil {
		return err
	}
	what := p.what
	if i := workerNumber(p.name); i > 0 { // a restarted worker is a new member
		id := fmt.Sprintf("w%d-%s", i, uuid.NewString()[:4])
		p.socket = id + ".sock"
		what = what.With(map[string]string{"id": id, "listen": "unix:" + p.socket})
	}
	if s.cfg.Adapt != nil {
		what = s.cfg.Adapt(p.name, what)
	}
	p.cmd = exec.Command(s.cfg.Executable, what.Args()...)
	p.cmd.Env = s.environment(p.name)
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
	if s.halting && p.name == "coordinator" { // its predecessor ended before the last checkpoint
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

// processors returns the processors for a process: its own for each worker if there are enough; nil: any.
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

// environment is that of a child process. The last value of a variable counts.
func (s *supervisor) environment(name string) []string {
	return slices.Concat(os.Environ(), s.cfg.Env, s.gpu(name), []string{lifelineVariable + "=3"})
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

// ask makes etcd or the coordinator end in good order. A signal would be lost before the process handles signals.
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

// wind waits for the workers, which exit when the job is done, and then ends etcd. In a failed run there may be no job,
// and what is left does not know of the end: it is asked to go.
func (s *supervisor) wind(ctx context.Context, failed bool) {
	if failed {
		s.ask("coordinator")
		for name := range s.procs {
			if workerNumber(name) > 0 {
				s.signal(name, syscall.SIGTERM)
			}
		}
	}
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
