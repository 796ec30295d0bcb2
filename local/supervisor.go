package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"evenweave/processors"
)

// LifelineVariable tells a child which file descriptor ends when its parent does.
const LifelineVariable = "EVENWEAVE_LIFELINE"

const (
	quickDeath   = 10 * time.Second // a process that ends by itself sooner did not work
	quickDeaths  = 3                // so often in a row, and the run is given up
	restartPause = 200 * time.Millisecond
)

// supervisor starts processes, restarts those that are killed, and ends them all. One goroutine uses it.
type supervisor struct {
	cfg      Config
	procs    map[string]*process   // those wanted, by name
	live     map[*process]struct{} // those running, also who retires while another has taken the name over
	exits    chan exited
	starts   chan func()
	alive    *os.File // children hold the other end
	lifeline *os.File
	readers  sync.WaitGroup
	workers  int  // wanted now
	halting  bool // the coordinator was asked to save and end
}

type process struct {
	name    string
	args    []string
	events  func(io.Reader) error
	cmd     *exec.Cmd
	started time.Time
	deaths  int
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
	s := &supervisor{cfg: cfg, procs: map[string]*process{}, live: map[*process]struct{}{}, exits: make(chan exited, 16), starts: make(chan func()), alive: w, lifeline: r}
	go func() { // Linux ends children with the *thread* that started them: all are started by one that stays
		runtime.LockOSThread()
		for start := range s.starts {
			start()
		}
	}()
	return s, nil
}

// keep starts a process under a name and keeps it running.
func (s *supervisor) keep(name string, args []string, events func(io.Reader) error) {
	p := &process{name: name, args: args, events: events}
	s.procs[name] = p
	s.start(p)
}

func (s *supervisor) start(p *process) {
	if err := s.launch(p); err != nil {
		s.readers.Go(func() { s.exits <- exited{p, err} })
	}
}

func (s *supervisor) launch(p *process) error {
	log, err := os.OpenFile(s.logPath(p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	args := p.args
	if strings.HasPrefix(p.name, "worker") { // a process that comes back is a new member
		args = append(args[:len(args):len(args)], "--id", strings.Replace(p.name, "orker-", "", 1)+"-"+uuid.NewString()[:4])
	}
	if s.cfg.Adapt != nil {
		args = s.cfg.Adapt(p.name, args)
	}
	p.cmd = exec.Command(s.cfg.Executable, args...)
	p.cmd.Env = append(append(os.Environ(), s.cfg.Env...), LifelineVariable+"=3")
	p.cmd.ExtraFiles = []*os.File{s.lifeline}
	p.cmd.Stderr = log
	p.cmd.SysProcAttr = childAttributes()
	var out io.ReadCloser
	if p.events == nil {
		p.cmd.Stdout = log
	} else if out, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	p.started = time.Now()
	result := make(chan error)
	s.starts <- func() { result <- processors.Start(p.cmd, s.processors(p.name)) }
	if err := <-result; err != nil {
		_ = log.Close()
		return err
	}
	s.live[p] = struct{}{}
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

// scale starts or retires workers until there are n.
func (s *supervisor) scale(n int, args []string) {
	s.workers = n
	for i := 1; i <= n; i++ {
		name := fmt.Sprintf("worker-%d", i)
		if p, ok := s.procs[name]; !ok || p.retire {
			s.keep(name, args, nil)
		} else if p.cmd != nil && p.cmd.Process != nil {
			if err := processors.Bind(p.cmd.Process.Pid, s.processors(name)); err != nil {
				s.cfg.Log.Warn("sharing the processors out anew", "process", name, "err", err)
			}
		}
	}
	for name, p := range s.procs {
		if workerNumber(name) > n && !p.retire {
			p.retire = true
			s.signal(name, syscall.SIGTERM)
		}
	}
}

func (s *supervisor) signal(name string, sig os.Signal) {
	if p := s.procs[name]; p != nil && p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(sig)
	}
}

// exited decides what the end of a process means. done: the run is over.
func (s *supervisor) exited(e exited) (done bool, err error) {
	p := e.p
	delete(s.live, p)
	var exit *exec.ExitError
	killed := errors.As(e.err, &exit) && !exit.Exited()
	code := 0
	if exit != nil && exit.Exited() {
		code = exit.ExitCode()
	} else if e.err != nil && exit == nil {
		return true, fmt.Errorf("%s: %w", p.name, e.err)
	}
	if s.procs[p.name] != p {
		return false, nil // replaced meanwhile
	}
	if p.name == "coordinator" && !killed && (code != 0 || s.cfg.Finished()) { // else it resigned: the job is to go on
		delete(s.procs, p.name)
		if code == 0 {
			return true, nil
		}
		return true, &Exit{Code: code, Tail: s.tail(p.name)}
	}
	if p.name == "coordinator" && s.halting { // it was too young to hear, say: the next one would not know
		delete(s.procs, p.name)
		s.scale(0, nil)
		return true, &Exit{Code: 130, Tail: "the coordinator ended without a last checkpoint"}
	}
	if p.retire || code == 0 && !killed && workerNumber(p.name) > 0 {
		delete(s.procs, p.name)
		return false, nil
	}
	if killed || time.Since(p.started) > quickDeath {
		p.deaths = 0
	} else if p.deaths++; p.deaths >= quickDeaths {
		delete(s.procs, p.name)
		return true, &Exit{Code: 1, Tail: fmt.Sprintf("%s failed %d times in a row: %s", p.name, p.deaths, s.tail(p.name))}
	}
	s.cfg.Log.Warn("starting again", "process", p.name, "after", e.err)
	if !killed {
		time.Sleep(restartPause)
	}
	s.start(p)
	return false, nil
}

// tail returns the last error line of a log, for the terminal.
func (s *supervisor) tail(name string) string {
	b, err := os.ReadFile(s.logPath(name))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return fmt.Sprintf("%s (log: %s)", strings.TrimPrefix(string(lines[len(lines)-1]), "error: "), s.logPath(name))
}

// wind waits for the workers, which go by themselves when the job is done, and then ends etcd.
func (s *supervisor) wind(ctx context.Context) {
	limit := time.After(exitTimeout)
	ended := false
	for len(s.live) > 0 {
		if _, running := s.live[s.procs["etcd"]]; running && !ended && len(s.live) == 1 {
			ended = true
			s.signal("etcd", syscall.SIGTERM)
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
