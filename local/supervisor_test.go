package local

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// troupe is a supervisor of shell scripts in place of Evenweave's programs, and the pipe on which they say that they are ready.
type troupe struct {
	*supervisor
	t     *testing.T
	stage *os.File
	end   func() // closes the supervisor, once
}

func newTroupe(t *testing.T, executable string) troupe {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "stage")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	stage, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSupervisor(Config{Dir: dir, Executable: executable, Finished: func() bool { return false }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(s.close)
	t.Cleanup(func() { end(); _ = stage.Close() })
	return troupe{s, t, stage, end}
}

// play is a program that prepares, says that it is ready, and waits to be ended.
func (s troupe) play(prepares string) []string {
	return []string{"-c", fmt.Sprintf("%s; echo > %q; exec sleep 60", prepares, s.stage.Name())}
}

const patience = 20 * time.Second

// ready waits until n more processes are.
func (s troupe) ready(n int) {
	s.t.Helper()
	_ = s.stage.SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(s.stage, make([]byte, n)); err != nil {
		s.t.Fatalf("%d processes are not ready: %v", n, err)
	}
}

// next is the next end of a process.
func (s troupe) next() exited {
	s.t.Helper()
	select {
	case e := <-s.exits:
		return e
	case <-time.After(patience):
		s.t.Fatalf("no process ends; %d live", len(s.live))
	}
	return exited{}
}

// goesOn says that the run goes on with this end of a process.
func (s troupe) goesOn(e exited) {
	s.t.Helper()
	if done, err := s.exited(e); done || err != nil {
		s.t.Fatalf("%s ended: done %v, %v; want the run to go on", e.p.name, done, err)
	}
}

// A worker that left by itself leaves a gap in the numbers; those beyond it are retired all the same.
func TestScaleDownPastAGap(t *testing.T) {
	s := newTroupe(t, "/bin/sh")
	s.scale(5, s.play(":"))
	s.ready(5)
	s.procs["worker-3"].retire = true
	s.signal("worker-3", syscall.SIGTERM)
	s.goesOn(s.next())
	s.scale(2, nil)
	ended := map[string]bool{}
	for range 2 {
		e := s.next()
		s.goesOn(e)
		ended[e.p.name] = true
	}
	if !ended["worker-4"] || !ended["worker-5"] || len(s.procs) != 2 || len(s.live) != 2 {
		t.Errorf("ended %v; left %d, of which %d live; want workers 1 and 2", ended, len(s.procs), len(s.live))
	}
}

// A retired worker that takes its time, while another has its name already, is ended when the run is.
func TestCloseEndsWhoIsRetiring(t *testing.T) {
	s := newTroupe(t, "/bin/sh")
	stubborn := s.play(`trap "" TERM`)
	s.scale(2, stubborn)
	s.ready(2)
	s.scale(1, stubborn)
	s.scale(2, stubborn)
	s.ready(1)
	if len(s.procs) != 2 || len(s.live) != 3 {
		t.Fatalf("%d processes wanted, %d live; want 2 and 3", len(s.procs), len(s.live))
	}
	ended := make(chan struct{})
	go func() { defer close(ended); s.end() }()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("somebody was left alive")
	}
}

// etcd does not end a run by ending: it is started again, also after an orderly end.
func TestEtcdIsStartedAgain(t *testing.T) {
	s := newTroupe(t, "/bin/sh")
	s.keep("etcd", []string{"-c", fmt.Sprintf("echo > %q", s.stage.Name())}, nil)
	for range quickDeaths - 1 {
		s.ready(1)
		e := s.next()
		if e.err != nil {
			t.Fatal(e.err)
		}
		s.goesOn(e)
	}
	s.ready(1)
	if done, err := s.exited(s.next()); !done || err == nil {
		t.Errorf("it ended at once %d times in a row: done %v, %v", quickDeaths, done, err)
	}
}

// A machine on which nothing can be started fails the run, and keeps answering.
func TestNothingCanBeStarted(t *testing.T) {
	s := newTroupe(t, "/nowhere/evenweave")
	const many = 40 // more than the channel of ends takes
	s.scale(many, nil)
	for range many {
		if done, err := s.exited(s.next()); !done || !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("done %v, %v", done, err)
		}
	}
}

// An interrupt that ends the coordinator, instead of telling it to save, is not forgotten.
func TestInterruptedTooEarly(t *testing.T) {
	s := newTroupe(t, "/bin/sh")
	s.keep("coordinator", s.play(":"), nil)
	s.ready(1)
	s.halting = true
	s.signal("coordinator", os.Interrupt)
	var exit *Exit
	if done, err := s.exited(s.next()); !done || !errors.As(err, &exit) || exit.Code != 130 {
		t.Errorf("done %v, %v; want the run to end, interrupted", done, err)
	}
}
