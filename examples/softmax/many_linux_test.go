package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMany trains with as many worker processes as EVENWEAVE_TEST_MANY says, one in 16 of them a spare. It kills 8 at
// once, scales to 16 and back, and logs how long each took and what the coordinator and etcd cost:
//
//	EVENWEAVE_TEST_MANY=64 go test -v -run Many .
func TestMany(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("EVENWEAVE_TEST_MANY"))
	if err != nil || n < 16 {
		t.Skip("EVENWEAVE_TEST_MANY is not a number of processes, at least 16")
	}
	inside := n - n/16 // micro-batches, and so the most members of a world
	r := startMany(t, n, inside)

	began := time.Now()
	r.await("a full world", func(w world) bool { return len(w.Members) == inside })
	t.Logf("%d of %d processes train after %.1f s; the others are spares", inside, n, time.Since(began).Seconds())

	const window = 10 * time.Second
	before, first, at := r.cpu(), r.step, time.Now()
	for time.Since(at) < window {
		r.next()
	}
	seconds, now := time.Since(at).Seconds(), r.cpu()
	pace := 0.05 * float64(max(inside, 16)) / 16
	t.Logf("%.0f steps/s; coordinator %.1f%% of a processor for at most %.0f reports/s (members / pace of %.2f s), "+
		"etcd %.1f%% for %.0f lease renewals/s and %.0f KB/s read (members^2 x 0.4 KB / poll of %.0f s)",
		float64(r.step-first)/seconds, 100*(now["coordinator"]-before["coordinator"])/seconds,
		float64(inside)/pace, pace, 100*(now["etcd"]-before["etcd"])/seconds, float64(n)*3/5,
		float64(n*n)*0.4/(2*float64(max(n, 64))/64), 2*float64(max(n, 64))/64)

	began = time.Now()
	for _, m := range r.world.Members[:8] {
		if err := syscall.Kill(m.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	killed := r.world.Generation
	r.await("a step after 8 deaths", func(w world) bool { return w.Generation > killed })
	mended := time.Since(began)
	r.await("a full world after 8 deaths", func(w world) bool {
		return w.Generation > killed && len(w.Members) == inside
	})
	t.Logf("8 killed at once: the next step after %.2f s, all replaced after %.1f s", mended.Seconds(),
		time.Since(began).Seconds())
	for _, to := range []int{16, n} {
		began = time.Now()
		r.scale(to)
		r.await(fmt.Sprintf("%d workers", to), func(w world) bool { return len(w.Members) == min(to, inside) })
		t.Logf("scaled to %d: they train after %.1f s", to, time.Since(began).Seconds())
	}
	r.interrupt()
}

type world struct {
	Event      string
	Step       int
	Generation int
	Members    []struct {
		ID  string
		PID int
	}
}

// manyRun is a run of `train` and its newest events.
type manyRun struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	events *bufio.Reader
	world  world
	step   int // committed in that world; -1: none
}

func startMany(t *testing.T, n, microBatches int) *manyRun {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "train", "--dir", dir, "--workers", fmt.Sprint(n), "--global-batch",
		fmt.Sprint(2*microBatches), "--micro-batch", "2", "--points", "100000", "--steps", "1000000000", "--epochs",
		"1000000000", "--checkpoint-every", "1000000", "--evaluate=false", "--parallelism", "1", "--pin=false",
		"--http", "", "-o", "json")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(10*time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		limit.Stop()
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		if t.Failed() {
			t.Log(errs.String())
		}
	})
	return &manyRun{t: t, cmd: cmd, dir: dir, events: bufio.NewReaderSize(out, 1<<20)}
}

// next takes one event.
func (r *manyRun) next() {
	r.t.Helper()
	line, err := r.events.ReadBytes('\n')
	if err != nil {
		r.t.Fatalf("the run ended: %v", err)
	}
	var w world
	if err := json.Unmarshal(line, &w); err != nil {
		r.t.Fatalf("%v: %s", err, line)
	}
	switch {
	case w.Event == "world":
		r.world, r.step = w, -1
	case w.Event == "step" && w.Generation == r.world.Generation:
		r.step = w.Step
	}
}

// await takes events until a world that holds accepts has committed a step.
func (r *manyRun) await(what string, holds func(world) bool) {
	r.t.Helper()
	limit := time.Now().Add(5 * time.Minute)
	for r.step < 0 || !holds(r.world) {
		if time.Now().After(limit) {
			r.t.Fatalf("no %s in 5 minutes; the world has %d members", what, len(r.world.Members))
		}
		r.next()
	}
}

// cpu is the processor time that the coordinator and etcd have used, in seconds.
func (r *manyRun) cpu() map[string]float64 {
	used := map[string]float64{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		text, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) < 13 || fields[1] != fmt.Sprint(r.cmd.Process.Pid) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		args := strings.Split(string(command), "\x00")
		if len(args) > 1 {
			user, _ := strconv.ParseFloat(fields[11], 64)
			system, _ := strconv.ParseFloat(fields[12], 64)
			used[args[1]] += (user + system) / 100
		}
	}
	return used
}

func (r *manyRun) scale(n int) {
	r.t.Helper()
	if out, err := exec.Command(os.Args[0], "scale", fmt.Sprint(n), "--dir", r.dir).CombinedOutput(); err != nil {
		r.t.Fatalf("scale %d: %v\n%s", n, err, out)
	}
}

// interrupt ends the run in good order.
func (r *manyRun) interrupt() {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, r.events)
	var exit *exec.ExitError
	if err := r.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 130 {
		r.t.Errorf("interrupted: %v, want exit code 130", err)
	}
}
