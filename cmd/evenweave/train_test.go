package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/evenweavetest"
	"evenweave/fashion/fashionmnist"
	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/job"
)

// beEvenweave makes this test binary the program under test: `evenweave train` starts its children from its own
// executable.
const beEvenweave = "EVENWEAVE_TEST_BINARY_IS_EVENWEAVE"

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func TestMain(m *testing.M) {
	if os.Getenv(beEvenweave) != "" {
		main()
	}
	if len(os.Args) == 5 && os.Args[1] == beNeighbour {
		neighbour(os.Args[2], os.Args[3], os.Args[4])
		return
	}
	evenweavetest.ClearVariables()
	os.Exit(m.Run())
}

// deadline is how long a test waits for what must happen: only a hang takes so long, however busy the machine is.
const deadline = 3 * time.Minute

// program prepares a command of the program, ended with the test.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = "../.." // where `make setup` puts the plug-in
	cmd.Env = append(os.Environ(), beEvenweave+"=1")
	return cmd
}

func needData(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("trains for real: skipped by -short")
	}
	dir, err := filepath.Abs("../../.evenweave/data")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fashionmnist.Find(dir); err != nil {
		t.Fatalf("%v: run `make setup`", err)
	}
	return dir
}

// tiny is a job on real data whose epochs are 4 steps long, the last one padded: 100 samples in batches of 32.
func tiny(data, dir string, more ...string) []string {
	return append([]string{"train", "-o", "json", "--data", data, "--dir", dir, "--holdout", "59900", "--global-batch",
		"32", "--micro-batch", "8",
		"--evaluate=false"}, more...)
}

type doneEvent struct {
	Event    string `json:"event"`
	Step     int    `json:"step"`
	Workers  int    `json:"workers"`
	Complete bool   `json:"complete"`
	Weights  string `json:"weights_sha256"`
	Print    string `json:"fingerprint"`
	Backend  string `json:"backend"`
}

func lastDone(t *testing.T, out []byte) doneEvent {
	t.Helper()
	var d doneEvent
	for line := range bytes.Lines(out) {
		var e doneEvent
		if json.Unmarshal(line, &e) == nil && e.Event == "done" {
			d = e
		}
	}
	if d.Weights == "" {
		t.Fatalf("no done event in:\n%s", out)
	}
	return d
}

func train(t *testing.T, args ...string) doneEvent {
	t.Helper()
	cmd := program(t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s\nevents:\n%s\nlogs:\n%s", args, err, stderr.Bytes(), out, logs(args))
	}
	return lastDone(t, out)
}

// logs are those of all processes of a run, for a failure's message.
func logs(args []string) []byte {
	var all []byte
	at := slices.Index(args, "--dir")
	files, _ := filepath.Glob(filepath.Join(args[at+1], "logs", "*"))
	for _, name := range files {
		text, err := os.ReadFile(name)
		all = fmt.Appendf(all, "%s: %v\n%s\n", filepath.Base(name), err, text)
	}
	return all
}

// TestWorkerCountChangesNothing is the promise: the same spec gives the same bits for any number of workers and lanes,
// over epochs' ends.
func TestWorkerCountChangesNothing(t *testing.T) {
	data := needData(t)
	plugins, err := filepath.Glob("../../.evenweave/xla/pjrt_c_api_cpu*")
	if err != nil {
		t.Fatal(err)
	}
	one := map[string]doneEvent{} // by recipe
	for _, how := range []string{
		"--workers 1", "--workers 2 --parallelism 2", "--workers 3", "--workers 5",
		"--recipe fast --workers 1", "--recipe fast --workers 3",
	} {
		got := train(t, tiny(data, t.TempDir(), append(strings.Fields(how), "--steps", "14")...)...)
		if got.Step != 14 || !got.Complete || len(plugins) > 0 && got.Backend != "xla" {
			t.Errorf("%s: ended at step %d, complete: %v, on backend %s", how, got.Step, got.Complete, got.Backend)
		}
		recipe, _, _ := strings.Cut(how, "--workers")
		want, ok := one[recipe]
		if !ok {
			one[recipe] = got
		} else if got.Weights != want.Weights || got.Print != want.Print {
			t.Errorf("%s: weights %s, fingerprint %s; one worker gives %s, %s", how, got.Weights, got.Print,
				want.Weights, want.Print)
		}
	}
}

// TestGoBackendAgreesWithItself: on the other backend the bits are others, and as independent of the worker count.
func TestGoBackendAgreesWithItself(t *testing.T) {
	data := needData(t)
	one := train(t, tiny(data, t.TempDir(), "--backend", "go", "--workers", "1", "--steps", "3")...)
	two := train(t, tiny(data, t.TempDir(), "--backend", "go", "--workers", "2", "--steps", "3")...)
	if one.Weights != two.Weights || one.Backend != "go" {
		t.Errorf("backend %s: 1 worker gives %s, 2 give %s", one.Backend, one.Weights, two.Weights)
	}
}

// endless is more steps than a job takes that a test interrupts, on however slow a machine.
const endless = "100000"

// interruptAt sends SIGINT once the step has been committed, and returns what was printed.
func interruptAt(t *testing.T, step int, args ...string) doneEvent {
	t.Helper()
	return signalAt(t, step, func(train *os.Process) {
		if err := train.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	}, args...)
}

// TestResume: a run that is stopped and goes on with another worker count ends with the bits of one that was not.
func TestResume(t *testing.T) {
	data := needData(t)
	dir := t.TempDir()
	stopped := interruptAt(t, 5, tiny(data, dir, "--workers", "2", "--steps", endless)...)
	resumed := interruptAt(t, stopped.Step+20, tiny(data, dir, "--workers", "1", "--steps", endless)...)
	if stopped.Complete || stopped.Step < 5 || resumed.Complete || resumed.Step < stopped.Step+20 {
		t.Fatalf("stopped: %+v, resumed: %+v", stopped, resumed)
	}
	finished, steps := t.TempDir(), fmt.Sprint(resumed.Step)
	whole := train(t, tiny(data, finished, "--workers", "2", "--steps", steps)...)
	if resumed.Weights != whole.Weights || resumed.Print != whole.Print || resumed.Step != whole.Step {
		t.Errorf("stopped at step %d and resumed: step %d %s; uninterrupted: step %d %s",
			stopped.Step, resumed.Step, resumed.Weights, whole.Step, whole.Weights)
	}
	t.Run("another spec is refused", func(t *testing.T) {
		out, err := program(t, tiny(data, dir, "--steps", endless, "--seed", "7")...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "seed") {
			t.Errorf("resuming with another seed: %v\n%s", err, out)
		}
	})
	t.Run("a finished run says so again", func(t *testing.T) {
		if again := train(t, tiny(data, finished, "--steps", steps)...); again.Weights != whole.Weights {
			t.Errorf("again: %+v", again)
		}
	})
}

// TestResumeAfterALeaderThatCouldNotResign: the end of the stopped run stands in etcd until the new coordinator leads,
// which it cannot before the old lease is over. A worker that starts meanwhile must not take that end for its own.
func TestResumeAfterALeaderThatCouldNotResign(t *testing.T) {
	data := needData(t)
	dir := t.TempDir()
	stopped := interruptAt(t, 5, tiny(data, dir, "--workers", "1", "--steps", endless)...)
	leadUnresigned(t, filepath.Join(dir, "etcd"))
	next := stopped.Step + 1
	if resumed := interruptAt(t, next, tiny(data, dir, "--workers", "1", "--steps", endless)...); resumed.Step < next {
		t.Errorf("stopped: %+v, resumed: %+v", stopped, resumed)
	}
}

// leadUnresigned leaves a leadership behind in an etcd directory, with the time of a lease to go.
func leadUnresigned(t *testing.T, dir string) {
	t.Helper()
	etcd := etcdtest.Start(t, dir)
	defer etcd.Halt()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	c, err := cluster.Dial([]string{etcd.Endpoint()}, "evenweave")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Campaign(ctx, job.Leader{ID: "other", Address: "127.0.0.1:1"}, 5*time.Second); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// bench step trains as processes and reports each part of a step.
func TestBenchStep(t *testing.T) {
	cmd := program(t, "bench", "step", "--data", needData(t), "--workers", "2", "--steps", "1",
		"--global-batch", "8", "--micro-batch", "4", "-o", "json")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	var f struct {
		StepMS   float64            `json:"step_ms"`
		MemoryMB float64            `json:"memory_mb"`
		Parts    map[string]float64 `json:"parts_ms"`
	}
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil || f.StepMS <= 0 || f.MemoryMB <= 0 {
		t.Fatalf("%v: %s%s", err, text, &stderr)
	}
	for _, part := range []string{"gradients", "quantise", "fingerprint", "mean", "update"} {
		if f.Parts[part] <= 0 {
			t.Errorf("%s took %v ms", part, f.Parts[part])
		}
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"train", "--workers", "0"}, exitUsage, "--workers 0"},
		{[]string{"train", "--micro-batch", "7"}, exitUsage, "--micro-batch 7 does not divide --global-batch 128"},
		{[]string{"train", "--no-such-flag"}, exitUsage, "no-such-flag"},
		{[]string{"train", "extra"}, exitUsage, "extra"},
		{[]string{"train", "--recipe", "cake"}, exitUsage, "cake"},
		{[]string{"train", "--backend", "tpu"}, exitUsage, "tpu"},
		{[]string{"train", "--holdout", "-1"}, exitUsage, "--holdout -1"},
		{[]string{"train", "--classes", "3-256"}, exitUsage, "--classes \"3-256\""},
		{[]string{"train", "--samples", "-1"}, exitUsage, "--samples -1"},
		{[]string{"train", "--freeze", "conv3/*"}, exitUsage, "conv1/kernel"},
		{[]string{"train", "--freeze", "*/*"}, exitUsage, "nothing would be trained"},
		{[]string{"train", "--freeze", "conv[/*"}, exitUsage, "syntax error"},
		{[]string{"train", "--init-from", "/nowhere"}, exitFailed, "/nowhere"},
		{[]string{"train", "--output", "xml"}, exitUsage, "xml"},
		{[]string{"trian"}, exitUsage, "trian"},
		{[]string{"scale", "many"}, exitUsage, "many"},
		{[]string{"bench", "allreduce", "--workers", "1"}, exitUsage, "2 or more"},
		{[]string{"bench", "allreduce", "--net", "moon"}, exitUsage, "moon"},
		{[]string{"bench", "step", "--workers", "9"}, exitUsage, "8 micro-batches"},
		{[]string{"scale"}, exitUsage, "one number"},
		{[]string{"status", "--dir", "/nowhere"}, exitFailed, "/nowhere"},
		{[]string{"evaluate", "--dir", "/nowhere", "--data", "../../.evenweave/data"}, exitFailed, "/nowhere"},
		{[]string{"train", "--help"}, exitDone, "Ctrl-C"},
	} {
		cmd := program(t, c.args...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("%v: exit code %d, want %d, saying %q:\n%s", c.args, code, c.code, c.says, out)
		}
	}
}

func TestVariables(t *testing.T) {
	cmd := program(t, "train")
	cmd.Env = append(cmd.Env, "EVENWEAVE_WORKERS=none")
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "EVENWEAVE_WORKERS") {
		t.Errorf("exit code %d:\n%s", cmd.ProcessState.ExitCode(), out)
	}
}

// What a variable sets for a process of its own must not make a local cluster's processes collide, nor wait forever.
func TestVariablesOfOneProcess(t *testing.T) {
	cmd := program(t, tiny(needData(t), t.TempDir(), "--workers", "2", "--steps", "2")...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // taken, so that listening there fails
	taken := l.Addr().String()
	cmd.Env = append(cmd.Env, "EVENWEAVE_HTTP="+taken, "EVENWEAVE_LISTEN="+taken, "EVENWEAVE_ADVERTISE="+taken,
		"EVENWEAVE_WHEN_DONE=wait")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
