package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

const namespace = "evenweave"

// kubectl runs it in the namespace and returns what it printed on standard output; the error holds standard error.
func kubectl(ctx context.Context, args ...string) (string, error) {
	return kubectlWith(ctx, nil, args...)
}

func kubectlWith(ctx context.Context, stdin []byte, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"--namespace", namespace}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	if strings.Contains(stderr.String(), "Warning:") {
		return stdout.String(), fmt.Errorf("kubectl %s warns: %s", strings.Join(args, " "), &stderr)
	}
	return stdout.String(), nil
}

// pod is what the tests use of a pod.
type pod struct {
	name, ip, node string
	going, ready   bool
	restarts       int
}

// pods lists those of a component, oldest first.
func pods(ctx context.Context, component string) ([]pod, error) {
	out, err := kubectl(ctx, "get", "pods", "--sort-by=.metadata.creationTimestamp",
		"-l", "app.kubernetes.io/component="+component, "-o",
		`jsonpath={range .items[*]}{.metadata.name}|{.status.podIP}|{.spec.nodeName}`+
			`|{.metadata.deletionTimestamp}|{.status.conditions[?(@.type=="Ready")].status}`+
			`|{.status.containerStatuses[0].restartCount}{"\n"}{end}`)
	var list []pod
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		f := strings.Split(line, "|")
		if len(f) != 6 {
			continue
		}
		p := pod{name: f[0], ip: f[1], node: f[2], going: f[3] != "", ready: f[4] == "True"}
		_, _ = fmt.Sscan(f[5], &p.restarts)
		list = append(list, p)
	}
	return list, err
}

// event is a line of the coordinator's log: the union of the fields that the tests read.
type event struct {
	Event      string    `json:"event"`
	Time       time.Time `json:"time"`
	Job        string    `json:"job"`
	Step       int       `json:"step"`
	Generation int       `json:"generation"`
	Workers    int       `json:"workers"`
	Size       int       `json:"size"`
	Seconds    float64   `json:"seconds"`
	Reason     string    `json:"reason"`
	Message    string    `json:"message"`
	Complete   bool      `json:"complete"`
	Weights    string    `json:"weights_sha256"`
	Checkpoint string    `json:"checkpoint"`
}

// journal follows the logs of all coordinator pods, one after the other, and keeps the committed steps and the newest
// other events.
type journal struct {
	t *testing.T

	mu      sync.Mutex
	job     string
	steps   []event // in order, each once
	latest  map[string]event
	changed chan struct{}
}

func newJournal(t *testing.T) *journal {
	return &journal{t: t, latest: map[string]event{}, changed: make(chan struct{})}
}

// run follows until ctx ends; the caller owns the goroutine.
func (j *journal) run(ctx context.Context) {
	var streams sync.WaitGroup
	defer streams.Wait()
	following := map[string]bool{}
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for {
		list, _ := pods(ctx, "coordinator")
		for _, p := range list {
			key := fmt.Sprint(p.name, p.restarts)
			if !p.going && p.ready && !following[key] {
				following[key] = true
				streams.Go(func() { j.follow(ctx, p.name) })
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (j *journal) follow(ctx context.Context, name string) {
	cmd := exec.CommandContext(ctx, "kubectl", "--namespace", namespace, "logs", "-f", name)
	out, err := cmd.StdoutPipe()
	if err != nil || cmd.Start() != nil {
		return
	}
	defer func() { _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.Event != "" {
			j.take(e)
		}
	}
}

func (j *journal) take(e event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch e.Event {
	case "start":
		if e.Job != j.job {
			j.job, j.steps = e.Job, nil
			clear(j.latest)
		}
	case "step":
		if n := len(j.steps); n == 0 || e.Step > j.steps[n-1].Step {
			j.steps = append(j.steps, e)
		}
	case "world", "notice", "warning", "failure", "done":
		j.t.Logf("%s %s: %s%s size %d", e.Time.Format("15:04:05.0"), e.Event, e.Reason, e.Message, e.Size)
	}
	j.latest[e.Event] = e
	close(j.changed)
	j.changed = make(chan struct{})
}

// last returns the newest committed step; its Step is 0 before the first.
func (j *journal) last() event {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.steps); n > 0 {
		return j.steps[n-1]
	}
	return event{}
}

func (j *journal) newest(kind string) event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.latest[kind]
}

// forget clears the journal for another job.
func (j *journal) forget() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.steps = nil
	clear(j.latest)
}

// after returns the steps committed after the given one.
func (j *journal) after(step int) []event {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i, e := range j.steps {
		if e.Step > step {
			return append([]event(nil), j.steps[i:]...)
		}
	}
	return nil
}

// await blocks until the condition holds. The test fails when it does not in time, or when the job ends before.
func (j *journal) await(ctx context.Context, what string, within time.Duration, condition func() bool) {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(time.Second) // for conditions on more than the journal
	defer ticker.Stop()
	for {
		j.mu.Lock()
		changed := j.changed
		j.mu.Unlock()
		done := j.newest("done").Event != "" // read before the condition, which may wait for it
		switch {
		case condition():
			return
		case done:
			j.t.Fatalf("the job ended before %s: give it more steps (EVENWEAVE_TEST_STEPS)", what)
		}
		select {
		case <-changed:
		case <-ticker.C:
		case <-ctx.Done():
			out, _ := kubectl(context.WithoutCancel(ctx), "get", "pods", "-o", "wide")
			j.t.Fatalf("no %s within %v; last step %d\n%s", what, within, j.last().Step, out)
		}
	}
}
