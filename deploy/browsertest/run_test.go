package browsertest

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// run is `evenweave train` as a process, and the lines that it reports.
type run struct {
	t       *testing.T
	program string
	dir     string
	cmd     *exec.Cmd
	ended   chan error

	mu     sync.Mutex
	lines  []line
	more   chan struct{}
	closed bool
}

// line holds what this test needs of any event.
type line struct {
	Event, URL string
	Step       int
	Generation int
	Size       int
	Reason     string
	Members    []member
}

type member struct {
	ID  string
	PID int
}

// train starts a run of two workers.
func train(t *testing.T, more ...string) *run {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r := &run{t: t, program: filepath.Join(root, "bin", "evenweave"), dir: t.TempDir(), ended: make(chan error, 1),
		more: make(chan struct{})}
	args := append([]string{"train", "-o", "json", "--dir", r.dir, "--workers", "2"}, more...)
	r.cmd = exec.Command(r.program, args...)
	r.cmd.Dir, r.cmd.Stderr = root, os.Stderr
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("%v; `make build` makes it", err)
	}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var l line
			if json.Unmarshal(lines.Bytes(), &l) == nil {
				r.add(l)
			}
		}
		r.ended <- r.cmd.Wait()
		r.add(line{Event: "ended"})
	}()
	t.Cleanup(func() { _ = r.cmd.Process.Kill() }) // its children end with it
	return r
}

func (r *run) add(l line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	close(r.more)
	r.more = make(chan struct{})
}

// await returns the first event that fits.
func (r *run) await(what string, fits func(line) bool) line {
	r.t.Helper()
	late := time.After(4 * time.Minute)
	for seen := 0; ; {
		r.mu.Lock()
		lines, more := r.lines[seen:], r.more
		r.mu.Unlock()
		for _, l := range lines {
			if seen++; fits(l) {
				return l
			}
			if l.Event == "ended" {
				r.t.Fatalf("the run ended before there was %s", what)
			}
		}
		select {
		case <-more:
		case <-late:
			r.t.Fatalf("no %s in four minutes", what)
		}
	}
}

// evenweave runs another command on the directory of the run.
func (r *run) evenweave(args ...string) string {
	r.t.Helper()
	cmd, said := exec.Command(r.program, append(args, "--dir", r.dir)...), new(strings.Builder)
	cmd.Stderr = said
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatalf("evenweave %s: %v: %s%s", strings.Join(args, " "), err, out, said)
	}
	return strings.TrimSpace(string(out))
}

// keeps waits until the run directory has so many generations. The coordinator saves them within ten seconds: one that
// is killed before that loses them.
func (r *run) keeps(generations string) {
	r.t.Helper()
	n, err := strconv.Atoi(generations)
	if err != nil {
		r.t.Fatal(err)
	}
	late, often := time.After(time.Minute), time.NewTicker(50*time.Millisecond)
	defer often.Stop()
	for {
		var kept struct{ Worlds struct{ Total int } }
		text, err := os.ReadFile(filepath.Join(r.dir, "history.json"))
		if err == nil {
			err = json.Unmarshal(text, &kept)
		}
		if err == nil && kept.Worlds.Total >= n {
			return
		}
		select {
		case <-often.C:
		case <-late:
			r.t.Fatalf("%d of %d generations are kept after a minute: %v", kept.Worlds.Total, n, err)
		}
	}
}

// interrupt ends the run as Ctrl-C does.
func (r *run) interrupt() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-r.ended:
	case <-time.After(4 * time.Minute):
		r.t.Fatal("the run goes on four minutes after it was interrupted")
	}
	if code := r.cmd.ProcessState.ExitCode(); code != 130 {
		r.t.Errorf("an interrupted run ended with code %d, want 130", code)
	}
}

func (r *run) kill(pid int) {
	r.t.Helper()
	if pid <= 1 { // 0 is this process's whole group
		r.t.Fatalf("kill -9 %d: not a process of the run", pid)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		r.t.Fatalf("kill -9 %d: %v", pid, err)
	}
}

// coordinator is the pid of the process that leads now; 0: none does.
func (r *run) coordinator() int {
	var status struct{ Coordinator struct{ PID int } }
	if err := json.Unmarshal([]byte(r.evenweave("status", "-o", "json")), &status); err != nil {
		r.t.Fatal(err)
	}
	return status.Coordinator.PID
}

// lastLoss is that of the last step in metrics.jsonl, as its text.
func (r *run) lastLoss() (step int, loss float64) {
	r.t.Helper()
	f, err := os.Open(filepath.Join(r.dir, "metrics.jsonl"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var l struct {
			Event string
			Step  int
			Loss  json.Number
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			r.t.Fatal(err)
		}
		if l.Event == "step" {
			step = l.Step
			loss, _ = strconv.ParseFloat(l.Loss.String(), 64)
		}
	}
	return step, loss
}
