package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"evenweave/internal/local"
)

// begun starts the program; the lines are those that it prints.
func begun(t *testing.T, args ...string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := program(t, args...)
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewScanner(pipe)
}

// signalAt sends signals once the step has been committed, and returns what was printed.
func signalAt(t *testing.T, step int, send func(train *os.Process), args ...string) doneEvent {
	t.Helper()
	cmd, lines := begun(t, args...)
	var out bytes.Buffer
	for sent := false; lines.Scan(); {
		out.Write(append(lines.Bytes(), '\n'))
		var e doneEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "step" && e.Step >= step && !sent {
			sent = true
			send(cmd.Process)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("interrupted run ended with %v, want exit code %d", err, exitInterrupted)
	}
	return lastDone(t, out.Bytes())
}

// TestSignalToEveryProcess: what ends a whole session at once (a service manager, a terminal that closes) costs no
// step: a last checkpoint is made, and the run goes on to the bits of one that was not stopped.
func TestSignalToEveryProcess(t *testing.T) {
	data, dir := needData(t), t.TempDir()
	reached := 0
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) { // under nohup: a run that outlives its terminal is what its user asked for
			t.Logf("%v is ignored here, and so by what is started", sig)
			continue
		}
		stopped := signalAt(t, reached+3, func(train *os.Process) {
			for _, pid := range append(childrenOf(t, train.Pid), train.Pid) {
				if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) { // it has ended
					t.Error(err)
				}
			}
		}, tiny(data, dir, "--workers", "2", "--steps", endless)...)
		if stopped.Complete || stopped.Step < reached+3 {
			t.Fatalf("%v at step %d: stopped at step %d, complete: %v", sig, reached+3, stopped.Step, stopped.Complete)
		}
		whole := train(t, tiny(data, t.TempDir(), "--workers", "1", "--steps", fmt.Sprint(stopped.Step))...)
		if whole.Weights != stopped.Weights {
			t.Errorf("%v at step %d: weights %s, a run that was not stopped has %s", sig, stopped.Step, stopped.Weights,
				whole.Weights)
		}
		reached = stopped.Step
	}
}

// TestARunThatIsFoundCanBeScaled: at once, also where an earlier run of the directory was scaled to another count; and
// the count that is asked for is not taken back.
func TestARunThatIsFoundCanBeScaled(t *testing.T) {
	data, dir := needData(t), t.TempDir()
	for _, asked := range []int{3, 1} {
		cmd, lines := begun(t, tiny(data, dir, "--workers", "2", "--steps", endless)...)
		often, limit := time.NewTicker(time.Millisecond), time.Now().Add(deadline)
		for _, err := local.Find(dir); err != nil && time.Now().Before(limit); _, err = local.Find(dir) {
			<-often.C
		}
		often.Stop()
		if out, err := program(t, "scale", fmt.Sprint(asked), "--dir", dir).CombinedOutput(); err != nil {
			t.Errorf("the run is found, but not scaled: %v\n%s", err, out)
			_ = cmd.Process.Signal(os.Interrupt)
		}
		scaled := false
		for lines.Scan() {
			var e doneEvent
			if !scaled && json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "step" && e.Workers == asked {
				scaled = true
				if err := cmd.Process.Signal(os.Interrupt); err != nil {
					t.Error(err)
				}
			}
		}
		if err := cmd.Wait(); !scaled {
			t.Errorf("no step with %d workers: %v", asked, err)
		}
	}
}

// TestNothingIsLeftRunning: a parent killed with SIGKILL takes its children along, and the directory can be used again.
func TestNothingIsLeftRunning(t *testing.T) {
	data := needData(t)
	dir := t.TempDir()
	cmd, lines := begun(t, tiny(data, dir, "--workers", "2", "--steps", endless)...)
	for lines.Scan() {
		var e doneEvent
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event == "step" {
			break
		}
	}
	t.Run("a second run in the directory is refused", func(t *testing.T) {
		out, err := program(t, tiny(data, dir)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), fmt.Sprint(cmd.Process.Pid)) {
			t.Errorf("want an error that names pid %d, got %v\n%s", cmd.Process.Pid, err, out)
		}
	})
	children := childrenOf(t, cmd.Process.Pid)
	if len(children) != 4 {
		t.Errorf("children %v, want etcd, a coordinator and two workers", children)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // ends when the last holder of the pipe has gone
	}
	_ = cmd.Wait()
	limit := time.After(deadline)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, pid := range children {
		for syscall.Kill(pid, 0) == nil && !zombie(pid) {
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("process %d outlived its parent", pid)
			}
		}
	}
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		t.Skip("no /proc on this platform")
	}
	var out []int
	for _, path := range stats {
		var child, parent int
		var state string
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		_, _ = fmt.Sscan(string(b), &child)
		_, _ = fmt.Sscan(fields[0], &state)
		_, _ = fmt.Sscan(fields[1], &parent)
		if parent == pid {
			out = append(out, child)
		}
	}
	return out
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}
