package local

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// troupe is a supervisor of shell scripts in place of Evenweave's programs, and the pipe on which they say that they
// are ready.
type troupe struct {
	*supervisor
	t     *testing.T
	stage *os.File
	end   func() // closes the supervisor, once
}

// newTroupe is a supervisor of an executable; "": of what play and script say.
func newTroupe(t *testing.T, executable string) troupe {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if executable == "" {
		executable = filepath.Join(dir, "script")
		const program = "#!/bin/sh\nfor a; do case $a in --script=*) exec /bin/sh -c \"${a#--script=}\" ;; esac; done"
		if err := os.WriteFile(executable, []byte(program), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "stage")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	stage, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSupervisor(Config{Dir: dir, Executable: executable, Finished: func() bool { return false },
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.now = func() time.Time { return began } // on a busy machine even what ends at once may take seconds
	s.after = func(time.Duration) <-chan time.Time { return time.After(0) }
	end := sync.OnceFunc(s.close)
	t.Cleanup(func() { end(); _ = stage.Close() })
	return troupe{s, t, stage, end}
}

// play is a program that prepares, says that it is ready, and waits to be ended.
func (s troupe) play(prepares string) Launch {
	return script(fmt.Sprintf("%s; echo > %q; exec sleep 600", prepares, s.stage.Name()))
}

// script is a program of a troupe.
func script(text string) Launch { return Launch{"test", map[string]string{"script": text}} }

const testLimit = 3 * time.Minute

// ready waits until n more processes are.
func (s troupe) ready(n int) {
	s.t.Helper()
	_ = s.stage.SetReadDeadline(time.Now().Add(testLimit))
	if _, err := io.ReadFull(s.stage, make([]byte, n)); err != nil {
		s.t.Fatalf("%d processes are not ready: %v", n, err)
	}
}

// next is the next end of a process.
func (s troupe) next() exited {
	s.t.Helper()
	limit := time.After(testLimit)
	for {
		select {
		case e := <-s.exits:
			return e
		case p := <-s.due:
			s.resume(p)
		case <-limit:
			s.t.Fatalf("no process ends; %d live", len(s.live))
		}
	}
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
	s := newTroupe(t, "")
	s.scale(5, s.play(":"))
	s.ready(5)
	s.procs["worker-3"].retire = true
	s.signal("worker-3", syscall.SIGTERM)
	s.goesOn(s.next())
	s.scale(2, Launch{})
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
func TestCloseEndsRetiringProcesses(t *testing.T) {
	s := newTroupe(t, "")
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
	case <-time.After(testLimit):
		t.Fatal("somebody was left alive")
	}
}

// failure is how a run ends with the next ends of processes, of which there are at most so many.
func (s troupe) failure(most int) error {
	s.t.Helper()
	for range most {
		if done, err := s.exited(s.next()); done {
			return err
		}
	}
	s.t.Fatalf("%d processes have ended, and the run goes on", most)
	return nil
}

// A failed run waits for nothing that does not know of its end: neither workers without a job, nor a coordinator
// without workers.
func TestAFailedRunEndsAtOnce(t *testing.T) {
	for _, row := range []struct{ fails, stays string }{{"coordinator", "worker-1"}, {"worker-1", "coordinator"}} {
		s := newTroupe(t, "")
		stays := s.play(":")
		if row.stays == "coordinator" {
			stays = script(fmt.Sprintf("echo > %q; read nothing; exit 1", s.stage.Name())) // until it is asked
		}
		s.keep(row.stays, stays, nil)
		s.ready(1)
		s.keep(row.fails, script("echo 'error: no data' >&2; exit 1"), nil)
		err := s.failure(quickDeaths)
		if s.wind(t.Context(), err != nil); err == nil || len(s.live) > 0 {
			t.Errorf("%s has failed, %v: %d live after the longest wait", row.fails, err, len(s.live))
		}
		s.end()
	}
}

// What says that a process is started again is true: in the pause before it the run may end.
func TestARestartIsSaidWhenItIsMade(t *testing.T) {
	s := newTroupe(t, "")
	var warned strings.Builder
	s.cfg.Log = slog.New(slog.NewTextHandler(&warned, nil))
	s.keep("worker-1", script("exit 1"), nil)
	s.goesOn(s.next())
	if before := warned.String(); strings.Contains(before, "starting again") {
		t.Errorf("in the pause: %s", before)
	}
	if s.next(); !strings.Contains(warned.String(), `"starting again" process=worker-1 after="exit status 1"`) {
		t.Errorf("it is started again: %q", warned.String())
	}
}

// etcd does not end a run by ending: it is started again, also after an orderly end.
func TestEtcdIsStartedAgain(t *testing.T) {
	s := newTroupe(t, "")
	s.keep("etcd", script(fmt.Sprintf("echo > %q", s.stage.Name())), nil)
	for range quickDeaths - 1 {
		e := s.next()
		if e.err != nil {
			t.Fatal(e.err)
		}
		s.goesOn(e)
	}
	s.ready(quickDeaths - 1)
	if done, err := s.exited(s.next()); !done || err == nil {
		t.Errorf("it ended at once %d times in a row: done %v, %v", quickDeaths, done, err)
	}
}

// A machine on which nothing can be started fails the run, and keeps answering.
func TestNothingCanBeStarted(t *testing.T) {
	s := newTroupe(t, "/nowhere/evenweave")
	const many = 40 // more than the channel of ends takes
	s.scale(many, Launch{})
	var exit *Exit
	if err := s.failure(many * quickDeaths); !errors.As(err, &exit) || !strings.Contains(exit.Tail, "no such file") {
		t.Error(err)
	}
	if len(s.procs) != 0 {
		t.Errorf("it ended with %d workers still to be started", len(s.procs))
	}
}

// A process that is killed again and again, by the kernel for want of memory, say, does not loop forever: the signal
// is named.
func TestKilledAgainAndAgain(t *testing.T) {
	for _, name := range []string{"worker-1", "coordinator", "etcd"} {
		s := newTroupe(t, "")
		s.keep(name, script("kill -9 $$"), nil)
		var exit *Exit
		if err := s.failure(100); !errors.As(err, &exit) || !strings.Contains(exit.Tail, name) ||
			!strings.Contains(exit.Tail, "signal 9") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A worker that cannot start, or is unfit, does not take the healthy ones along: the run goes on without it until none
// is left.
func TestOneBadWorkerEndsNothing(t *testing.T) {
	for text, c := range map[string]struct {
		ends int
		says string
	}{
		"echo 'error: the GPU is full' >&2; exit 1":                     {quickDeaths, "the GPU is full"},
		fmt.Sprintf("echo 'error: w is unfit' >&2; exit %d", ExitUnfit): {1, "w is unfit"},
		"kill -9 $$": {quickKills, "signal 9"},
	} {
		s := newTroupe(t, "")
		var warned strings.Builder
		s.cfg.Log = slog.New(slog.NewTextHandler(&warned, nil))
		s.keep("worker-1", s.play(":"), nil)
		s.ready(1)
		s.keep("worker-2", script(text), nil)
		for range c.ends {
			s.goesOn(s.next())
		}
		if s.procs["worker-2"] != nil || len(s.live) != 1 || !strings.Contains(warned.String(), c.says) {
			t.Errorf("%s: still kept: %v; %d live; warned of\n%s", text, s.procs["worker-2"] != nil,
				len(s.live), &warned)
		}
		s.procs["worker-1"].what = script(text)
		s.signal("worker-1", syscall.SIGKILL)
		if err := s.failure(1 + c.ends); err == nil {
			t.Errorf("%s: no worker is left, and the run is done", text)
		}
		s.end()
	}
}

// An unfit worker's place is not filled again by scaling: its machine is what is wrong.
func TestUnfitWorkerStaysAway(t *testing.T) {
	s := newTroupe(t, "")
	s.keep("worker-1", s.play(":"), nil)
	s.keep("worker-2", script(fmt.Sprintf("exit %d", ExitUnfit)), nil)
	s.ready(1)
	s.goesOn(s.next())
	s.scale(2, s.play(":"))
	if s.procs["worker-2"] != nil {
		t.Error("it was started again")
	}
}

// A coordinator that ends, instead of saving, when the run is interrupted is followed by one that is asked to save: a
// signal to every process at once, or an interrupt before it had begun to listen.
func TestInterruptIsNotForgotten(t *testing.T) {
	s := newTroupe(t, "")
	s.keep("coordinator", s.play(":"), nil)
	s.ready(1)
	s.halting = true
	s.procs["coordinator"].what = script("read nothing; exit 130") // until it is asked
	s.signal("coordinator", syscall.SIGTERM)
	s.goesOn(s.next())
	var exit *Exit
	if done, err := s.exited(s.next()); !done || !errors.As(err, &exit) || exit.Code != 130 {
		t.Errorf("done %v, %v; want the second to be asked, and the run to end as interrupted", done, err)
	}
}

// A coordinator that panics has failed, and was not called wrongly.
func TestAPanicIsNoBadUsage(t *testing.T) {
	for text, want := range map[string]int{"echo 'error: --steps -1' >&2; exit 2": 2,
		"echo 'panic: index out of range [3]' >&2; echo 'goroutine 1 [running]:' >&2; exit 2": 1} {
		s := newTroupe(t, "")
		s.keep("coordinator", script(text), nil)
		var exit *Exit
		if err := s.failure(1); !errors.As(err, &exit) || exit.Code != want {
			t.Errorf("%s: %v, want exit code %d", text, err, want)
		}
		s.end()
	}
}

// The reason of an end is not the end of a stack.
func TestReason(t *testing.T) {
	for log, want := range map[string]string{
		"":                           "it said nothing",
		"one\nerror: no such data\n": "no such data",
		"panic: index out of range [3]\n\n" +
			"goroutine 1 [running]:\nmain.main()\n\t/x/main.go:10 +0x45\n": "panic: index out of range [3]",
		"fatal error: out of memory\n\n" +
			"goroutine 1:\n\tmain.go:10 +0x45": "fatal error: out of memory",
		`{"level":"fatal","msg":"failed to open WAL","error":"EOF"}` +
			"\ngoroutine 1\n\tmain.go:10 +0x45": "failed to open WAL: EOF",
		"panic: write x: no space left on device\n\n" +
			"goroutine 1\n\tmain.go:10 +0x45\n": "panic: write x: no space left on device",
		`{"level":"error","msg":"save","error":"write wal: no space left on device"}` + "\npanic: save\nmain.go:10 " +
			"+0x45": "save: write wal: no space left on device",
	} {
		if got := reason([]byte(log)); got != want {
			t.Errorf("of %q: %q, want %q", log, got, want)
		}
	}
}

// TestWorkersGetGPUs: one each, then in turn; another process gets none.
func TestWorkersGetGPUs(t *testing.T) {
	s := &supervisor{cfg: Config{GPUs: []string{"2", "GPU-8f6b"}}}
	for name, want := range map[string]string{"worker-1": "CUDA_VISIBLE_DEVICES=2",
		"worker-2": "CUDA_VISIBLE_DEVICES=GPU-8f6b", "worker-3": "CUDA_VISIBLE_DEVICES=2", "coordinator": ""} {
		if got := strings.Join(s.gpu(name), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := (&supervisor{}).gpu("worker-1"); got != nil {
		t.Errorf("%q where there is no GPU", got)
	}
}
