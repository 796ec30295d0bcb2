package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// limit bounds each wait for something that takes seconds on an idle machine: test machines are busy.
const limit = 5 * time.Minute

// setting reads an integer variable of the test.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// jobFlags are the spec of the test's job: small steps, at most four workers.
func jobFlags(steps int) map[string]string {
	return map[string]string{"steps": fmt.Sprint(steps), "global-batch": "32", "micro-batch": "8", "seed": "7",
		"evaluate": "false", "checkpoint-every": "200", "keep": "2"}
}

// overlay writes a kustomization: the dev overlay with this test's image and job.
func overlay(t *testing.T, name string, steps int) string {
	return overlayOf(t, "overlays/dev", name, steps)
}

func overlayOf(t *testing.T, dir, name string, steps int) string {
	return kustomizationOf(t, dir, settingsOf(os.Getenv("EVENWEAVE_IMAGE"), name, jobFlags(steps)))
}

// settingsOf is the part of a kustomization that says which job runs, from which image.
func settingsOf(image, job string, flags map[string]string) string {
	image, tag, _ := strings.Cut(image, ":")
	var b strings.Builder
	fmt.Fprintf(&b, "resources: [OVERLAY]\nimages: [{name: evenweave, newName: %s, newTag: %q}]\n", image, tag)
	fmt.Fprintf(&b, "configMapGenerator:\n- name: evenweave\n  behavior: merge\n  literals:\n  - EVENWEAVE_JOB=%s\n "+
		" - EVENWEAVE_OUTPUT=json\n", job)
	for flag, value := range flags {
		fmt.Fprintf(&b, "  - EVENWEAVE_%s=%s\n", strings.ReplaceAll(strings.ToUpper(flag), "-", "_"), value)
	}
	return b.String()
}

// reference trains the same spec on this machine, with one worker, and returns the hash of its weights.
func reference(ctx context.Context, t *testing.T, steps int) (string, error) {
	return referenceOf(ctx, t, filepath.Join("..", "..", "bin", "evenweave"), jobFlags(steps))
}

func referenceOf(ctx context.Context, t *testing.T, program string, flags map[string]string) (string, error) {
	args := []string{"train", "--workers", "1", "--dir", t.TempDir(), "-o", "json"}
	for flag, value := range flags {
		args = append(args, "--"+flag+"="+value)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stderr = ".", &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, &stderr)
	}
	for line := range bytes.Lines(out) {
		var e event
		if json.Unmarshal(line, &e) == nil && e.Event == "done" {
			return e.Weights, nil
		}
	}
	return "", fmt.Errorf("no done event from %s %s", program, strings.Join(args, " "))
}

// trial is the deployment under test.
type trial struct {
	*testing.T
	ctx     context.Context
	journal *journal
}

// do runs kubectl and fails the test on an error or a warning.
func (t trial) do(args ...string) string {
	t.Helper()
	out, err := kubectl(t.ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// workers returns the pods that are not being deleted.
func (t trial) workers() []pod {
	list, err := pods(t.ctx, "worker")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list, func(p pod) bool { return p.going })
}

// trainsWith waits for a committed step of a world of n after the given step, and returns it.
func (t trial) trainsWith(n, after int) (e event) {
	t.Helper()
	t.journal.await(t.ctx, fmt.Sprintf("step with %d workers", n), limit, func() bool {
		e = t.journal.last()
		return e.Step > after && e.Workers == n
	})
	return e
}

// settled waits until exactly n workers exist, are ready and train together.
func (t trial) settled(n int) {
	t.Helper()
	t.journal.await(t.ctx, fmt.Sprintf("%d ready workers", n), limit, func() bool {
		list, err := pods(t.ctx, "worker")
		return err == nil && len(list) == n &&
			!slices.ContainsFunc(list, func(p pod) bool { return !p.ready || p.going })
	})
	t.trainsWith(n, t.journal.last().Step)
}

// evict asks the API for an eviction, as a drain does; false: the disruption budget refused it.
func (t trial) evict(name string) bool {
	t.Helper()
	body := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":%q}}`,
		name, namespace)
	_, err := kubectlWith(t.ctx, []byte(body), "create", "--raw",
		"/api/v1/namespaces/"+namespace+"/pods/"+name+"/eviction", "-f", "-")
	if err != nil && !strings.Contains(err.Error(), "disruption budget") {
		t.Fatal(err)
	}
	t.Logf("eviction of %s: %v", name, map[bool]any{true: "granted", false: err}[err == nil])
	return err == nil
}

// longest is the longest time between two committed steps after the given one.
func (t trial) longest(after int) (gap time.Duration) {
	for _, e := range t.journal.after(after) {
		gap = max(gap, time.Duration(e.Seconds*float64(time.Second)))
	}
	return gap.Round(time.Millisecond)
}

func TestCluster(t *testing.T) {
	steps := setting(t, "EVENWEAVE_TEST_STEPS", 3000)
	deletions := setting(t, "EVENWEAVE_TEST_DELETIONS", 2)
	x := newTrial(t)
	dir := overlay(t, "first", steps)
	x.admission(dir)
	x.volumes()
	x.do("apply", "-k", dir)
	first := x.trainsWith(1, 0)
	t.Logf("training: step %d", first.Step)

	x.scale()
	x.deletions(deletions)
	x.coordinator()
	x.eviction()
	x.rollout()
	x.finish(steps)
	x.next()
}

// newTrial follows what is deployed into the namespace, and deletes that in the end.
func newTrial(t *testing.T) trial {
	t.Helper()
	if os.Getenv("EVENWEAVE_IMAGE") == "" {
		t.Skip("needs a cluster: `make test-kubernetes`")
	}
	ctx, cancel := context.WithCancel(t.Context())
	x := trial{t, ctx, newJournal(t)}
	done := make(chan struct{})
	go func() { defer close(done); x.journal.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			out, _ := kubectl(context.Background(), "get", "events", "--field-selector", "type=Warning")
			t.Log(out)
		}
		_, _ = kubectl(context.Background(), "delete", "namespace", namespace, "--wait=true")
	})
	return x
}

// admission: the API server accepts every overlay without a warning, under the restricted standard.
func (t trial) admission(dir string) {
	if _, err := kubectl(t.ctx, "apply", "-f", "base/namespace.yaml"); err != nil {
		t.Fatal(err)
	}
	overlays := []string{"overlays/dev", "overlays/production", "overlays/gpu", dir}
	if t.certManager() {
		overlays = append(overlays, withCertManager(t.T))
	}
	for _, d := range overlays {
		out := t.do("apply", "--dry-run=server", "-k", d)
		t.Logf("%s: %d objects accepted, no warning", d, strings.Count(out, "(server dry run)"))
	}
}

// claim asks for a volume.
func (t trial) claim(name string) {
	t.Helper()
	claim := fmt.Sprintf(`{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":%q},`+
		`"spec":{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}}}}`, name)
	if _, err := kubectlWith(t.ctx, []byte(claim), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// volumes runs the command EVENWEAVE_TEST_VOLUMES, before any pod needs the volumes: on some test clusters they belong
// to root, whatever fsGroup says, and it changes that.
func (t trial) volumes(more ...string) {
	command := os.Getenv("EVENWEAVE_TEST_VOLUMES")
	if command == "" {
		return
	}
	for _, name := range append(more, "evenweave-checkpoints", "data-evenweave-etcd-0") {
		t.claim(name)
		t.do("wait", "--for=jsonpath={.status.phase}="+string(corev1.ClaimBound), "--timeout=5m", "pvc/"+name)
	}
	if out, err := exec.CommandContext(t.ctx, "sh", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// scale: 1 -> 4 -> 2.
func (t trial) scale() {
	for _, n := range []int{4, 2} {
		before, began := t.journal.last().Step, time.Now()
		t.do("scale", "deployment/evenweave-worker", fmt.Sprintf("--replicas=%d", n))
		e := t.trainsWith(n, before)
		t.Logf("scaled to %d: first step with the new world (%d) after %v; longest gap between steps %v",
			n, e.Step, e.Time.Sub(began).Round(time.Millisecond), t.longest(before))
	}
	t.settled(2)
}

// deletions deletes pods one after the other: normally, by force, and (if EVENWEAVE_TEST_KILL is a command that kills
// the container $ID) by killing them. Each replacement is a new member.
func (t trial) deletions(n int) {
	kill := os.Getenv("EVENWEAVE_TEST_KILL")
	ways := map[string]func(name string) error{
		"deleted": func(name string) error {
			_, err := kubectl(t.ctx, "delete", "pod", name,
				"--wait=false")
			return err
		},
		"deleted by force": func(name string) error {
			_, err := kubectl(t.ctx, "delete", "pod", name, "--wait=false", "--grace-period=0", "--force")
			if err != nil && strings.Contains(err.Error(), "Warning: Immediate deletion") {
				return nil
			}
			return err
		},
		"killed": func(name string) error {
			id := t.do("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].containerID}")
			cmd := exec.CommandContext(t.ctx, "sh", "-c", kill)
			cmd.Env = append(os.Environ(), "ID="+strings.TrimPrefix(id, "containerd://"))
			return cmd.Run()
		},
	}
	order := []string{"deleted", "killed", "deleted by force", "killed"}
	if kill == "" {
		order = []string{"deleted", "deleted by force"}
	}
	var gaps []time.Duration
	for i := range n {
		how := order[i%len(order)]
		before := t.journal.last()
		if err := ways[how](t.workers()[i%2].name); err != nil {
			t.Fatal(err)
		}
		t.journal.await(t.ctx, "world without the one that was "+how, limit,
			func() bool { return t.journal.newest("world").Generation > before.Generation })
		t.settled(2)
		gaps = append(gaps, t.longest(before.Step))
		t.Logf("pod %d of %d %s: longest gap between committed steps %v", i+1, n, how, gaps[i])
	}
	slices.Sort(gaps)
	if n > 0 {
		t.Logf("longest gap at each of %d pod deletions: median %v, p99 %v", n, gaps[n/2], gaps[min(n-1, n*99/100)])
	}
}

// coordinator deletes the coordinator's pod: steps go on meanwhile, and its successor continues the job.
func (t trial) coordinator() {
	list, err := pods(t.ctx, "coordinator")
	if err != nil {
		t.Fatal(err)
	}
	before, began := t.journal.last().Step, time.Now()
	t.do("delete", "pod", list[0].name, "--wait=false")
	t.journal.await(t.ctx, "coordinator in the place of "+list[0].name, limit, func() bool {
		now, err := pods(t.ctx, "coordinator")
		return err == nil && len(now) == 1 && now[0].name != list[0].name && now[0].ready
	})
	away := time.Since(began)
	t.trainsWith(2, t.journal.last().Step)
	t.Logf("coordinator replaced after %v; %d steps were committed since, longest gap %v", away.Round(time.Millisecond),
		t.journal.last().Step-before, t.longest(before))
}

// eviction: the budget grants one and refuses the next until the first is replaced.
func (t trial) eviction() {
	w := t.workers()
	t.journal.await(t.ctx, "eviction: the budget learns late that both are ready", limit,
		func() bool { return t.evict(w[0].name) })
	if t.evict(w[1].name) {
		t.Fatal("the disruption budget granted a second eviction at once")
	}
	t.settled(2)
}

// rollout: every worker is replaced by a new pod, as in an upgrade.
func (t trial) rollout() {
	before, began := t.journal.last().Step, time.Now()
	old := t.workers()
	t.do("rollout", "restart", "deployment/evenweave-worker")
	t.do("rollout", "status", "deployment/evenweave-worker", "--timeout=10m")
	t.settled(2)
	for _, p := range t.workers() {
		if slices.ContainsFunc(old, func(o pod) bool { return o.name == p.name }) {
			t.Errorf("%s was there before the rollout", p.name)
		}
	}
	t.Logf("rolling restart: %v, %d steps, longest gap %v", time.Since(began).Round(time.Millisecond),
		t.journal.last().Step-before, t.longest(before))
}

// finish: the job ends with the weights of a run on one machine, and says where they are.
func (t trial) finish(steps int) { t.finishAs("first", steps) }

func (t trial) finishAs(job string, steps int) {
	var end event
	t.journal.await(t.ctx, "end of the job", 3*limit, func() bool {
		end = t.journal.newest("done")
		return end.Event != ""
	})
	if end.Step != steps || !end.Complete {
		t.Fatalf("done at step %d, complete %v; want step %d", end.Step, end.Complete, steps)
	}
	if !strings.HasPrefix(end.Checkpoint, "/data/"+job+"/") {
		t.Errorf("the checkpoint is reported as %q", end.Checkpoint)
	}
	finished := t.workers()
	want, err := reference(t.ctx, t.T, steps)
	if err != nil {
		t.Fatal(err)
	}
	if end.Weights != want {
		t.Fatalf("weights of the cluster %s, of the calm run with one worker %s", end.Weights, want)
	}
	t.Logf("step %d, weights sha256 %s: equal to the calm run's with one worker", end.Step, want)
	if now := t.workers(); !slices.Equal(now, finished) {
		t.Errorf("finished workers must wait for a request to leave: they were %v, are %v", finished, now)
	}
	t.do("scale", "deployment/evenweave-worker", "--replicas=0")
	t.do("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=worker", "--timeout=5m")
}

// next: another job on the same deployment is another name in its settings.
func (t trial) next() {
	const steps = 30
	t.journal.forget()
	t.do("apply", "-k", overlay(t.T, "second", steps))
	t.do("scale", "deployment/evenweave-worker", "--replicas=1")
	t.journal.await(t.ctx, "second job", limit, func() bool { return t.journal.newest("start").Job == "second" })
	var end event
	t.journal.await(t.ctx, "end of the second job", limit, func() bool {
		end = t.journal.newest("done")
		return end.Event != ""
	})
	if end.Step != steps || !strings.HasPrefix(end.Checkpoint, "/data/second/") {
		t.Fatalf("second job: step %d, checkpoint %s", end.Step, end.Checkpoint)
	}
	t.Logf("second job done: %s", end.Checkpoint)
}
