package composetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"evenweave/internal/progress"
	"evenweave/internal/security"
)

// bound limits each command, and each wait for an event while no step is committed. It is generous: test machines are
// busy.
const bound = 3 * time.Minute

// stack is a Compose project for one test, which removes it.
type stack struct {
	t       *testing.T
	project string
	files   []string // of Compose, the later over the earlier
	env     []string
	roles   map[security.Role]*security.Transport // as the stack made them

	stream  *stream // the coordinator's events
	readers sync.WaitGroup

	world progress.World // the newest seen
	step  progress.Step
}

// stream is the coordinator's events as a command prints them.
type stream struct {
	events chan progress.Event // in order; closed when the command has ended
	err    error               // how the command ended; set then
}

func newStack(t *testing.T, env ...string) *stack {
	s := &stack{t: t, project: fmt.Sprintf("evenweave-test-%d", os.Getpid()),
		files: []string{"../../docker-compose.yml"},
		env:   append(os.Environ(), env...), roles: map[security.Role]*security.Transport{}}
	t.Cleanup(func() {
		s.readers.Wait() // the test's context is over: they end
		if out, err := s.command(context.Background(), "--profile", "monitoring", "down", "-v", "--timeout",
			"5").CombinedOutput(); err != nil {
			t.Errorf("down: %v\n%s", err, out)
		}
		if t.Failed() { // last, after the containers' output
			t.Logf("failed in world %d of %d, at step %d", s.world.Generation, s.world.Size, s.step.Step)
		}
	})
	return s
}

func (s *stack) command(ctx context.Context, args ...string) *exec.Cmd {
	all := []string{"compose", "--ansi", "never", "-p", s.project}
	for _, file := range s.files {
		all = append(all, "-f", file)
	}
	cmd := exec.CommandContext(ctx, "docker", append(all, args...)...)
	cmd.Env = s.env
	return cmd
}

// compose runs one command of Docker Compose to its end.
func (s *stack) compose(args ...string) string {
	s.t.Helper()
	limit := bound
	if args[0] == "build" { // fetches all modules and compiles them
		limit = 20 * time.Minute
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), limit)
	defer cancel()
	s.t.Log("docker compose", strings.Join(args, " "))
	cmd := s.command(ctx, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("docker compose %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.Bytes())
	}
	return strings.TrimSpace(string(out))
}

func docker(t *testing.T, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// up runs `docker compose up` and waits for its end. Not for tests that scale down: when a container is removed, an
// attached `up` of Docker Compose 2.40 may panic (its issue 13559).
func (s *stack) up() {
	s.t.Helper()
	s.listen(s.command(s.t.Context(), "up", "--no-log-prefix", "--no-build"))
}

// returned waits until `up` has ended by itself.
func (s *stack) returned() {
	s.t.Helper()
	limit := time.After(bound)
	for more := true; more; {
		select {
		case _, more = <-s.stream.events:
		case <-limit:
			s.t.Fatalf("`docker compose up` has not returned %v after the end of the job", bound)
		}
	}
	if s.stream.err != nil {
		s.t.Errorf("`docker compose up` returned %v", s.stream.err)
	}
}

// follow reads the coordinator's output since its container was last started.
func (s *stack) follow() {
	s.t.Helper()
	id := s.containers("coordinator")[0]
	since := docker(s.t, "inspect", "--format", "{{.State.StartedAt}}", id)
	s.listen(exec.CommandContext(s.t.Context(), "docker", "logs", "--follow", "--since", since, id))
}

// listen reads a command's events from now on, instead of an earlier command's.
func (s *stack) listen(cmd *exec.Cmd) {
	s.t.Helper()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = bound
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	by := &stream{events: make(chan progress.Event, 1<<14)} // holds all of them: there may be no reader
	s.stream = by
	s.readers.Go(func() {
		defer close(by.events)
		s.read(out, by.events)
		by.err = cmd.Wait()
	})
}

func (s *stack) read(out io.Reader, events chan<- progress.Event) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if r, err := progress.Decode(lines.Bytes()); err == nil {
			events <- r.Event
		} else {
			s.t.Log(lines.Text())
		}
	}
}

// await reads events until one is what the test waits for. While steps are committed it keeps waiting: the job's end
// bounds it.
func (s *stack) await(what string, is func(progress.Event) bool) {
	s.t.Helper()
	limit := time.NewTimer(bound)
	defer limit.Stop()
	for {
		select {
		case e, ok := <-s.stream.events:
			if !ok {
				s.t.Fatalf("the coordinator's events ended (%v) before %s, at step %d: if the machine is fast, set "+
					"EVENWEAVE_TEST_STEPS higher", s.stream.err, what, s.step.Step)
			}
			switch e := e.(type) {
			case progress.World:
				s.t.Logf("world %d: %d workers, %s", e.Generation, e.Size, e.Reason)
				s.world = e
			case progress.Step:
				s.step = e
				limit.Reset(bound)
			case progress.Warning:
				s.t.Log("warning:", e.Message)
			case progress.Done:
				if !e.Complete {
					s.t.Fatal("the job was stopped early")
				}
			}
			if is(e) {
				s.t.Logf("step %d: %s", s.step.Step, what)
				return
			}
		case <-limit.C:
			s.t.Fatalf("waiting for %s: no step within %v: world %d of %d, step %d", what, bound, s.world.Generation,
				s.world.Size, s.step.Step)
		}
	}
}

// awaitTraining waits for a step committed by a world of this size, newer than the generation.
func (s *stack) awaitTraining(size int, after uint64) {
	s.t.Helper()
	s.await(fmt.Sprintf("a step of %d workers", size), func(e progress.Event) bool {
		step, ok := e.(progress.Step)
		return ok && step.Workers == size && step.Generation > after
	})
}

// containers returns the ids of a service's running containers.
func (s *stack) containers(service string) []string {
	s.t.Helper()
	return strings.Fields(s.compose("ps", "-q", service))
}

// murder kills a container's first process from outside, so that the restart policy applies: after `docker kill` it
// would not.
func (s *stack) murder(id string) {
	s.t.Helper()
	pid, err := strconv.Atoi(docker(s.t, "inspect", "--format", "{{.State.Pid}}", id))
	if err == nil && pid <= 1 { // 0, of one that does not run, is this process's whole group
		err = fmt.Errorf("it has pid %d", pid)
	}
	if err == nil {
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err != nil {
		s.t.Fatalf("killing container %s: %v", id, err)
	}
}

// place asks a worker for its generation and step.
func (s *stack) place(worker string) (generation, step int) {
	s.t.Helper()
	return int(s.gauge(worker, security.Worker, "evenweave_worker_generation")),
		int(s.gauge(worker, security.Worker, "evenweave_worker_step"))
}

// outcome is what two runs of one spec must have in common.
type outcome struct {
	Weights     string
	Fingerprint string // of the optimizer, the data position and the ledger too
	Accuracy    float64
}

func outcomeOf(d progress.Done) outcome {
	o := outcome{Weights: d.WeightsSHA256, Fingerprint: d.Fingerprint}
	o.Accuracy, _ = progress.Find(d.Figures, "accuracy")
	return o
}

// calm trains the same spec with `evenweave train` on this machine.
func calm(t *testing.T, program string, env []string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "train", "-o", "json", "--dir", t.TempDir())
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("evenweave train: %v", err)
	}
	var last progress.Done
	for line := range bytes.Lines(out) {
		if r, err := progress.Decode(line); err == nil {
			if d, ok := r.Event.(progress.Done); ok {
				last = d
			}
		}
	}
	if last.WeightsSHA256 == "" {
		t.Fatalf("evenweave train printed no result: %s", out)
	}
	return outcomeOf(last)
}

func decodeJSON(t *testing.T, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%v in %s", err, b)
	}
}
