package kubernetes

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// samplesClaim is the user's, with what is trained on.
const samplesClaim = "evenweave-data"

// With the component for data, and not without, what trains and what evaluates read the user's claim, and its path is
// in their settings.
func (d deployment) testSamples(t *testing.T, wanted bool) {
	for _, w := range d.workloads {
		claimed := slices.ContainsFunc(w.pod.Volumes, func(v corev1.Volume) bool {
			c := v.PersistentVolumeClaim
			return c != nil && c.ClaimName == samplesClaim && c.ReadOnly
		})
		mounted := slices.ContainsFunc(w.pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.MountPath == "/samples" && m.ReadOnly
		})
		needed := wanted && slices.Contains([]string{"coordinator", "worker"}, w.component())
		if claimed != needed || mounted != needed {
			t.Errorf("%s: the claim %s is a volume: %v, mounted: %v, expected %v", w.name, samplesClaim, claimed,
				mounted, needed)
		}
	}
	for _, o := range d.objects {
		if c, ok := o.(*corev1.ConfigMap); ok && strings.HasPrefix(c.Name, "evenweave-") &&
			c.Data["EVENWEAVE_JOB"] != "" {
			if got := c.Data["EVENWEAVE_DATA"]; (got == "/samples") != wanted {
				t.Errorf("%s: EVENWEAVE_DATA is %q", c.Name, got)
			}
		}
	}
}

// writer is a pod that fills the claim, by a command of the image; IMAGE is its name.
const writer = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "samples"}, "spec": {"restartPolicy": "Never",
	"automountServiceAccountToken": false,
	"securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
		"seccompProfile": {"type": "RuntimeDefault"}},
	"containers": [{"name": "samples", "image": "IMAGE", "imagePullPolicy": "IfNotPresent",
		"command": ["/usr/local/bin/tabular", "generate", "/samples/flats.csv"],
		"securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
		"volumeMounts": [{"name": "samples", "mountPath": "/samples"}]}],
	"volumes": [{"name": "samples", "persistentVolumeClaim": {"claimName": "evenweave-data"}}]}}`

// TestDataOnAVolume: a task of one's own, by its image's name, is trained on data that are on a volume alone, to the
// weights of a run on this machine. EVENWEAVE_TEST_TASK is an image that has, beside each other, examples/gpt by the
// name evenweave and examples/tabular, whose command writes a table; both are in bin/task too.
func TestDataOnAVolume(t *testing.T) {
	image := os.Getenv("EVENWEAVE_TEST_TASK")
	if image == "" {
		t.Skip("needs a cluster, and an image of a task: `make test-kubernetes`")
	}
	x := newTrial(t)
	x.do("apply", "-f", "base/namespace.yaml")
	x.claim(samplesClaim)
	x.volumes(samplesClaim)
	x.fill(image)
	const steps = 60
	flags := jobFlags(steps)
	maps.Copy(flags, map[string]string{"backend": "go", "layers": "1", "width": "8", "heads": "2", "context": "8",
		"match": "*.csv"})
	x.do("apply", "-k", kustomization(t, "components: [COMPONENTS/data]\n"+settingsOf(image, "volume", flags)))
	x.do("scale", "deployment/evenweave-worker", "--replicas=2")
	var end event
	x.journal.await(x.ctx, "end of the job", limit, func() bool {
		end = x.journal.newest("done")
		return end.Event != ""
	})
	program := func(name string) string { return filepath.Join("..", "..", "bin", "task", name) }
	flags["data"] = t.TempDir()
	table := filepath.Join(flags["data"], "flats.csv")
	if out, err := exec.CommandContext(x.ctx, program("tabular"), "generate", table).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want, err := referenceOf(x.ctx, t, program("evenweave"), flags)
	if err != nil {
		t.Fatal(err)
	}
	if end.Step != steps || end.Weights != want {
		t.Fatalf("step %d, weights %s; the run on this machine %s", end.Step, end.Weights, want)
	}
	t.Logf("step %d, weights sha256 %s: equal to the run's on this machine", end.Step, want)
}

// fill has a pod write the samples.
func (t trial) fill(image string) {
	t.Helper()
	pod := []byte(strings.ReplaceAll(writer, "IMAGE", image))
	if _, err := kubectlWith(t.ctx, pod, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	t.do("wait", "--for=jsonpath={.status.phase}="+string(corev1.PodSucceeded), "--timeout=5m", "pod/samples")
}
