package composetest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/internal/progress"
)

const prometheusImage = "prom/prometheus:v2.42.0"

func needDocker(t *testing.T) {
	t.Helper()
	if os.Getenv("EVENWEAVE_TEST_COMPOSE") == "" {
		t.Skip("brings up a cluster with Docker: run `make test-compose`")
	}
	if out, err := exec.Command("docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("no Docker with Compose here: %v %s", err, out)
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		t.Skipf("no Docker engine answers: %v %s", err, out)
	}
	if os.Geteuid() != 0 {
		t.Skip("kills processes of containers by their pid: needs root")
	}
}

func TestPromtoolProvesTheRules(t *testing.T) {
	needDocker(t)
	if exec.Command("docker", "image", "inspect", prometheusImage).Run() != nil {
		t.Skip("no image " + prometheusImage)
	}
	files, err := filepath.Abs(monitoring)
	if err != nil {
		t.Fatal(err)
	}
	promtool := []string{"run", "--rm", "--network", "none", "-v", files + ":/m:ro", "--entrypoint", "/bin/promtool",
		prometheusImage}
	t.Log(docker(t, append(promtool, "check", "config", "--syntax-only", "/m/prometheus.yml")...))
	t.Log(docker(t, append(promtool, "test", "rules", "/m/rules_test.yml")...))
}

// TestNothingChangesTheWeights is the promise on a real cluster: scaled, killed, restarted, cut off from etcd and
// paused, it ends with the bits of a calm run on the host.
func TestNothingChangesTheWeights(t *testing.T) {
	needDocker(t)
	steps := os.Getenv("EVENWEAVE_TEST_STEPS")
	if steps == "" {
		steps = "5000"
	}
	// Small steps, many of them: what is tested is what happens between them.
	spec := []string{"EVENWEAVE_STEPS=" + steps, "EVENWEAVE_GLOBAL_BATCH=32", "EVENWEAVE_MICRO_BATCH=4",
		"EVENWEAVE_SEED=7"}
	s := newStack(t, slices.Concat(spec, shortLived(), []string{"EVENWEAVE_OUTPUT=json",
		"EVENWEAVE_CHECKPOINT_EVERY=200", "EVENWEAVE_STATUS_PORT=0", "EVENWEAVE_PROMETHEUS_PORT=0",
		"EVENWEAVE_WORKER_CPUS=0.5", "DOCKER_BUILDKIT=0"})...)
	if os.Getenv("EVENWEAVE_IMAGE") == "" {
		s.compose("build", "coordinator")
	}
	watched := exec.Command("docker", "image", "inspect", prometheusImage).Run() == nil

	s.compose("up", "-d", "--no-build")
	s.follow()
	s.awaitTraining(2, 0)
	if watched {
		s.compose("up", "-d", "--no-deps", "prometheus")
	}

	t.Log("--- all certificates are renewed")
	s.renews()

	t.Log("--- scale to 5 and back to 2")
	s.compose("up", "-d", "--no-build", "--scale", "worker=5")
	s.awaitTraining(5, s.world.Generation)
	s.compose("up", "-d", "--no-build", "--scale", "worker=2")
	s.awaitTraining(2, s.world.Generation)

	t.Log("--- kill one replica: it comes back by itself")
	before := s.world
	s.murder(s.containers("worker")[0])
	s.await("an unplanned world", func(e progress.Event) bool {
		w, ok := e.(progress.World)
		return ok && !w.Planned && w.Generation > before.Generation
	})
	s.awaitTraining(2, s.world.Generation-1) // it is this one, if the replica was quick

	t.Log("--- restart the coordinator: the steps go on")
	before = s.world
	last := s.step.Step
	s.compose("restart", "coordinator")
	s.follow()
	s.await("a coordinator that goes on with the job",
		func(e progress.Event) bool { _, ok := e.(progress.Start); return ok })
	s.await("a new step", func(e progress.Event) bool {
		step, ok := e.(progress.Step)
		return ok && step.Workers == 2 && step.Step > last
	}) // it repeats the last steps
	if s.world.Generation != before.Generation {
		t.Errorf("the world changed with the coordinator: generation %d, then %d",
			before.Generation, s.world.Generation)
	}

	t.Log("--- stop etcd: the steps go on")
	worker := s.containers("worker")[0]
	s.compose("stop", "etcd")
	generation, from := s.place(worker)
	for deadline := time.Now().Add(bound); ; {
		now, step := s.place(worker)
		if now != generation {
			t.Errorf("the world changed without etcd: generation %d, then %d", generation, now)
			break
		}
		if step >= from+100 {
			t.Logf("steps %d to %d without etcd", from, step)
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("without etcd only %d steps in %v", step-from, bound)
		}
	}
	s.compose("start", "etcd")
	s.await("reports of the steps of that time",
		func(e progress.Event) bool { step, ok := e.(progress.Step); return ok && step.Step >= from+100 })

	t.Log("--- pause a worker: the other goes on; then it is back")
	before = s.world
	docker(t, "pause", worker)
	s.awaitTraining(1, before.Generation)
	docker(t, "unpause", worker)
	s.awaitTraining(2, before.Generation)

	if watched {
		t.Log("--- what Prometheus and the status say meanwhile")
		checkMonitoring(t, s)
	}
	checkContainers(t, s)
	t.Log("--- what answers which callers on the bridge")
	checkPorts(t, s)

	t.Log("--- kill all workers, then `up`, which returns at the job's end")
	before = s.world
	s.compose("kill", "worker")
	s.up()
	s.awaitTraining(2, before.Generation)

	var done progress.Done
	s.await("the end", func(e progress.Event) (ok bool) { done, ok = e.(progress.Done); return ok })
	s.returned()
	for _, id := range strings.Fields(s.compose("ps", "-aq", "worker", "coordinator")) {
		if state := docker(t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", id); state != "exited 0" {
			t.Errorf("container %s: %s, want exited 0", id, state)
		}
	}

	t.Log("--- what renews certificates is healthy, and can be stopped")
	s.checkRenewal()

	t.Log("--- `up` again: done already, the same result")
	s.up()
	var again progress.Done
	s.await("the end", func(e progress.Event) (ok bool) { again, ok = e.(progress.Done); return ok })
	s.returned()
	if outcomeOf(again) != outcomeOf(done) {
		t.Errorf("up again: %+v, before %+v", outcomeOf(again), outcomeOf(done))
	}

	t.Log("--- the calm run on the host")
	if want := calm(t, "bin/evenweave", spec); outcomeOf(done) != want {
		t.Errorf("compose gives %+v,\nthe host %+v", outcomeOf(done), want)
	} else {
		t.Logf("equal: %+v", want)
	}

	s.compose("--profile", "monitoring", "down", "-v")
	for _, kind := range []string{"container", "volume", "network"} {
		args := []string{kind, "ls", "-q", "--filter", "label=com.docker.compose.project=" + s.project}
		if kind == "container" {
			args = append(args, "-a")
		}
		if left := docker(t, args...); left != "" {
			t.Errorf("`down -v` left a %s: %s", kind, left)
		}
	}
}

// checkContainers checks the containers' privileges and limits.
func checkContainers(t *testing.T, s *stack) {
	t.Helper()
	for _, id := range strings.Fields(s.compose("ps", "-q")) {
		got := docker(t, "inspect", "--format",
			"{{.Name}} user={{.Config.User}} readonly={{.HostConfig.ReadonlyRootfs}} cap={{.HostConfig.CapDrop}} "+
				"memory={{.HostConfig.Memory}} ports={{.HostConfig.PortBindings}}", id)
		t.Log(got)
		for _, want := range []string{"user=655", "readonly=true", "cap=[ALL]"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: want %s", got, want)
			}
		}
		if strings.Contains(got, "memory=0 ") || strings.Contains(got, "0.0.0.0") {
			t.Errorf("%s: no memory limit, or published beyond loopback", got)
		}
		for i, line := range strings.Split(docker(t, "top", id, "-eo", "pid,uid"), "\n") {
			if f := strings.Fields(line); i > 0 && (len(f) != 2 || f[1] == "0") {
				t.Errorf("%s: a process runs as root: %s", got, line)
			}
		}
	}
}

func get(t *testing.T, address string) []byte {
	t.Helper()
	client := http.Client{Timeout: bound}
	r, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v\n%s", address, r.Status, err, b)
	}
	return b
}

// checkOrigin asks as a web page of another origin does: the browser may not show it the answer.
func checkOrigin(t *testing.T, address string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address+"/api/v1/query?query=up", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", "https://evil.example")
	client := http.Client{Timeout: bound}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if allowed := answer.Header.Get("Access-Control-Allow-Origin"); allowed != "" {
		t.Errorf("%s lets %q read it", address, allowed)
	}
}

// checkMonitoring sends the running Prometheus all queries of the dashboard.
func checkMonitoring(t *testing.T, s *stack) {
	t.Helper()
	var seen map[string]any
	decodeJSON(t, []byte(s.compose("exec", "-T", "coordinator", "evenweave", "status", "-o", "json")), &seen)
	if seen["step"] == nil || seen["members"] == nil {
		t.Errorf("status: %v", seen)
	}
	prometheus := "http://" + s.compose("port", "prometheus", "9090")
	ask := func(query string) (n int, text string) {
		var answer struct {
			Status string
			Data   struct{ Result []any }
		}
		b := get(t, prometheus+"/api/v1/query?query="+url.QueryEscape(query))
		decodeJSON(t, b, &answer)
		if answer.Status != "success" {
			t.Errorf("%s: %s", query, b)
		}
		return len(answer.Data.Result), fmt.Sprint(answer.Data.Result)
	}
	tick, limit := time.NewTicker(time.Second), time.After(bound)
	defer tick.Stop()
	for _, query := range expressions(t, dashboard) {
		n, text := ask(query)
		for late := false; n == 0 && !strings.Contains(query, "> 0") && !late; n, text = ask(query) {
			select { // a rate needs two readings
			case <-tick.C:
			case <-limit:
				t.Errorf("Prometheus has no answer to %s", query)
				late = true
			}
		}
		t.Logf("%s = %s", query, text)
	}
	checkOrigin(t, prometheus)
	var rules struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	decodeJSON(t, get(t, prometheus+"/api/v1/rules"), &rules)
	for _, g := range rules.Data.Groups {
		for _, r := range g.Rules {
			if r.Health != "ok" && r.Health != "unknown" { // unknown: not evaluated yet
				t.Errorf("rule %s: %s %s", r.Name, r.Health, r.LastError)
			}
		}
	}
	if len(rules.Data.Groups) == 0 {
		t.Error("Prometheus has no rules")
	}
}
