// Package kubernetes holds no code, only manifests and the tests that keep them correct.
//
//	manifests_test.go  every overlay, offline: schemas, Pod Security, references, flags
//	certmanager_test.go  cert-manager for real, and its schemas
//	schemas_test.go    the kinds that manifests may have
//	certificates_test.go  which pod holds which key
//	samples_test.go    which pods read a task's data
//	network_test.go    which pods the policies let connect
//	cluster_test.go    the dev overlay on a real cluster (`make test-kubernetes`)
package kubernetes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	psapi "k8s.io/pod-security-admission/api"
	pspolicy "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

// workload is a pod template and its owner.
type workload struct {
	name     string
	selector *metav1.LabelSelector
	labels   map[string]string // of the pods
	pod      corev1.PodSpec
}

func (w workload) component() string { return w.labels["app.kubernetes.io/component"] }

// deployment is a rendered overlay.
type deployment struct {
	objects   []metav1.Object
	kinds     []string
	workloads []workload
}

// render builds a kustomization and decodes it strictly: an unknown field or a wrong type is an error.
func render(t *testing.T, dir string) deployment {
	t.Helper()
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Skip("kubectl is not installed: manifests are not validated here")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(kubectl, "kustomize", dir)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kubectl kustomize %s: %v\n%s", dir, err, &stderr)
	}
	var d deployment
	for _, doc := range strings.Split(string(out), "\n---\n") {
		var head metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatal(err)
		}
		kind := head.APIVersion + "/" + head.Kind
		object := typed(kind)
		if object == nil {
			t.Fatalf("%s: no schema here for %s", dir, kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
			t.Errorf("%s: %s %s: %v", dir, kind, object.GetName(), err)
		}
		d.objects, d.kinds = append(d.objects, object), append(d.kinds, kind)
		switch o := object.(type) {
		case *appsv1.Deployment:
			d.workloads = append(d.workloads, workload{o.Name, o.Spec.Selector, o.Spec.Template.Labels,
				o.Spec.Template.Spec})
		case *appsv1.StatefulSet:
			d.workloads = append(d.workloads, workload{o.Name, o.Spec.Selector, o.Spec.Template.Labels,
				o.Spec.Template.Spec})
		}
	}
	return d
}

// withMonitoring returns the directory of a kustomization of the dev overlay with the monitoring component.
func withMonitoring(t *testing.T) string {
	return kustomization(t, "resources: [OVERLAY]\ncomponents: [COMPONENTS/monitoring]\n")
}

// withCertManager returns the directory of a copy of the dev overlay that takes its certificates from cert-manager.
func withCertManager(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, part := range []string{"base", "etcd", "components", "overlays"} {
		if err := os.CopyFS(filepath.Join(dir, part), os.DirFS(part)); err != nil {
			t.Fatal(err)
		}
	}
	dir = filepath.Join(dir, "overlays", "dev")
	name := filepath.Join(dir, "kustomization.yaml")
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte("- ../../components/tls-evenweave #"), []byte("- ../../components/tls-cert-manager #"),
		1)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kustomization writes one into a new directory; OVERLAY and COMPONENTS stand for the relative paths of overlays/dev
// and components.
func kustomization(t *testing.T, body string) string { return kustomizationOf(t, "overlays/dev", body) }

func kustomizationOf(t *testing.T, overlay, body string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	body = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: evenweave\n" + body
	for word, path := range map[string]string{"OVERLAY": overlay, "COMPONENTS": "components"} {
		if !filepath.IsAbs(path) {
			path = filepath.Join(here, path)
		}
		relative, err := filepath.Rel(dir, path)
		if err != nil {
			t.Fatal(err)
		}
		body = strings.ReplaceAll(body, word, relative)
	}
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(body), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestManifests(t *testing.T) {
	dirs := map[string]string{"dev": "overlays/dev", "production": "overlays/production", "gpu": "overlays/gpu",
		"monitoring": withMonitoring(t), "cert-manager": withCertManager(t),
		"data": kustomization(t, "resources: [OVERLAY]\ncomponents: [COMPONENTS/data]\n")}
	for name, dir := range dirs {
		t.Run(name, func(t *testing.T) {
			d := render(t, dir)
			t.Run("samples", func(t *testing.T) { d.testSamples(t, name == "data") })
			t.Run("security", d.testSecurity)
			t.Run("references", d.testReferences)
			t.Run("habits", d.testHabits)
			t.Run("network", func(t *testing.T) { d.testNetwork(t, name == "monitoring") })
			t.Run("flags", d.testFlags)
			t.Run("certificates", d.testCertificates)
		})
	}
}

// Every pod passes the restricted Pod Security Standard, by the code that admission uses.
func (d deployment) testSecurity(t *testing.T) {
	restricted, err := pspolicy.NewEvaluator(pspolicy.DefaultChecks())
	if err != nil {
		t.Fatal(err)
	}
	level := psapi.LevelVersion{Level: psapi.LevelRestricted, Version: psapi.LatestVersion()}
	for _, w := range d.workloads {
		for _, r := range restricted.EvaluatePod(level, &metav1.ObjectMeta{Labels: w.labels}, &w.pod) {
			if !r.Allowed {
				t.Errorf("%s: %s: %s", w.name, r.ForbiddenReason, r.ForbiddenDetail)
			}
		}
		if token := w.pod.AutomountServiceAccountToken; token == nil || *token != (w.component() == "certs") {
			t.Errorf("%s: the pod of certificates alone needs a token of the Kubernetes API", w.name)
		}
		for _, c := range w.pod.Containers {
			if s := c.SecurityContext; s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("%s: writable root file system", w.name)
			}
		}
	}
	for i, o := range d.objects {
		if n, ok := o.(*corev1.Namespace); ok && n.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			t.Errorf("namespace %s does not enforce restricted", n.Name)
		} else if !ok && o.GetNamespace() != "evenweave" {
			t.Errorf("%s %s is in namespace %q", d.kinds[i], o.GetName(), o.GetNamespace())
		}
	}
}

// References resolve: selectors to a pod, names to an object, named ports to a container's port.
func (d deployment) testReferences(t *testing.T) {
	names := map[string]bool{}
	for i, o := range d.objects {
		names[d.kinds[i]+"/"+o.GetName()] = true
		if o, ok := o.(*appsv1.StatefulSet); ok {
			for _, c := range o.Spec.VolumeClaimTemplates {
				names["template/"+c.Name] = true
			}
		}
	}
	for _, w := range d.workloads {
		if got := d.selected(t, w.selector); !reflect.DeepEqual(got, []string{w.name}) {
			t.Errorf("%s selects the pods of %v, must be its own only", w.name, got)
		}
		if !names["v1/ServiceAccount/"+w.pod.ServiceAccountName] {
			t.Errorf("%s: no ServiceAccount %q", w.name, w.pod.ServiceAccountName)
		}
		for _, v := range w.pod.Volumes {
			if s := v.Secret; s != nil && d.keptIn(s.SecretName) == "" {
				t.Errorf("%s: nothing makes Secret %q", w.name, s.SecretName)
			}
			if c := v.PersistentVolumeClaim; c != nil && c.ClaimName != samplesClaim &&
				!names["v1/PersistentVolumeClaim/"+c.ClaimName] {
				t.Errorf("%s: no PersistentVolumeClaim %q", w.name, c.ClaimName)
			}
			names["volume/"+w.name+v.Name] = true
		}
		c := w.pod.Containers[0]
		for _, m := range c.VolumeMounts {
			if !names["volume/"+w.name+m.Name] && !names["template/"+m.Name] {
				t.Errorf("%s: no volume %q", w.name, m.Name)
			}
		}
		for _, e := range c.EnvFrom {
			if !names["v1/ConfigMap/"+e.ConfigMapRef.Name] {
				t.Errorf("%s: no ConfigMap %q", w.name, e.ConfigMapRef.Name)
			}
		}
		if w.component() == "certs" {
			continue // it serves nothing
		}
		for what, p := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe,
			"liveness": c.LivenessProbe} {
			if p == nil || p.HTTPGet == nil || portNumber(w, p.HTTPGet.Port.String()) == 0 {
				t.Errorf("%s: %s probe missing, or its port is not the container's", w.name, what)
			}
		}
	}
	for i, o := range d.objects {
		var selector *metav1.LabelSelector
		switch o := o.(type) {
		case *corev1.Service:
			selector = &metav1.LabelSelector{MatchLabels: o.Spec.Selector}
			for _, w := range d.workloads {
				for _, p := range o.Spec.Ports {
					if slices.Contains(d.selected(t, selector), w.name) && portNumber(w, p.TargetPort.String()) == 0 {
						t.Errorf("Service %s: %s has no port %s", o.Name, w.name, p.TargetPort.String())
					}
				}
			}
		case *policyv1.PodDisruptionBudget:
			selector = o.Spec.Selector
		case *networkingv1.NetworkPolicy:
			selector = &o.Spec.PodSelector
		case *podMonitor:
			selector = &o.Spec.Selector
		default:
			continue
		}
		if len(d.selected(t, selector)) == 0 {
			t.Errorf("%s %s selects no pod", d.kinds[i], o.GetName())
		}
	}
}

// Promises of README.md that nothing else checks.
func (d deployment) testHabits(t *testing.T) {
	for i, o := range d.objects {
		if part := o.GetLabels()["app.kubernetes.io/part-of"]; part != "evenweave" && d.kinds[i] != "v1/Namespace" {
			t.Errorf("%s %s: label app.kubernetes.io/part-of is %q", d.kinds[i], o.GetName(), part)
		}
		if o, ok := o.(*appsv1.Deployment); ok && o.Name == "evenweave-worker" {
			if o.Spec.Replicas != nil {
				t.Error("the workers' manifest sets replicas: applying it would undo `kubectl scale`")
			}
			if o.Spec.MinReadySeconds == 0 {
				t.Error("the workers' rollout does not wait until a new pod trains")
			}
		}
	}
	budgeted := map[string]bool{}
	for _, o := range d.objects {
		if b, ok := o.(*policyv1.PodDisruptionBudget); ok {
			for _, name := range d.selected(t, b.Spec.Selector) {
				budgeted[name] = true
			}
		}
	}
	for _, w := range d.workloads {
		c := w.pod.Containers[0]
		if grace := w.pod.TerminationGracePeriodSeconds; w.component() == "worker" && (grace == nil || *grace <= 30) {
			t.Errorf("%s: the grace period must be above the 25 s of `evenweave worker --grace`", w.name)
		}
		if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() ||
			c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: requests of cpu and memory and a limit of memory must be set", w.name)
		}
		if !c.Resources.Limits.Cpu().IsZero() {
			t.Errorf("%s: a cpu limit throttles, and a throttled member makes its peers wait", w.name)
		}
		if w.pod.EnableServiceLinks == nil || *w.pod.EnableServiceLinks {
			t.Errorf("%s: variables of services would look like EVENWEAVE_ flags", w.name)
		}
		if _, tag, ok := strings.Cut(c.Image, ":"); !ok || tag == "latest" || tag == "" {
			t.Errorf("%s: image %q has no fixed tag", w.name, c.Image)
		}
		if !budgeted[w.name] && !(d.replicas(w.name) == 1 && w.component() != "coordinator") {
			t.Errorf("%s: no PodDisruptionBudget", w.name)
		}
	}
}

func (d deployment) replicas(name string) int32 {
	for _, o := range d.objects {
		if s, ok := o.(*appsv1.StatefulSet); ok && s.Name == name {
			return *s.Spec.Replicas
		}
	}
	return 1
}

// The operator's alerts are those that Compose uses and promtool tests.
func TestAlerts(t *testing.T) {
	file, err := os.ReadFile(filepath.Join("..", "monitoring", "rules.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var want prometheusRule
	if err := yaml.Unmarshal(file, &want.Spec); err != nil {
		t.Fatal(err)
	}
	for _, o := range render(t, withMonitoring(t)).objects {
		if got, ok := o.(*prometheusRule); ok && !reflect.DeepEqual(got.Spec, want.Spec) {
			t.Error("components/monitoring/rules.yaml and deploy/monitoring/rules.yml differ: copy its groups " +
				"there, indented by two")
		}
	}
}

var flagPattern = regexp.MustCompile(`(?m)^\s+(?:-\w, )?--([a-z-]+)`)

// The program knows all flags and EVENWEAVE_ variables; it would silently ignore a misspelt variable.
func (d deployment) testFlags(t *testing.T) {
	binary := filepath.Join("..", "..", "bin", "evenweave")
	if _, err := os.Stat(binary); err != nil {
		t.Skip("bin/evenweave is not built: `make build`")
	}
	known := map[string]bool{}
	flags := map[string]map[string]bool{}
	for _, command := range []string{"coordinator", "worker", "certs init"} {
		help, err := exec.Command(binary, append(strings.Fields(command), "--help")...).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		flags[command] = map[string]bool{}
		for _, m := range flagPattern.FindAllSubmatch(help, -1) {
			flags[command][string(m[1])], known[string(m[1])] = true, true
		}
	}
	variable := func(where, name string) {
		rest, ours := strings.CutPrefix(name, "EVENWEAVE_")
		if flag := strings.ReplaceAll(strings.ToLower(rest), "_", "-"); ours && !known[flag] {
			t.Errorf("%s: %s: there is no flag --%s", where, name, flag)
		}
	}
	for _, o := range d.objects {
		if c, ok := o.(*corev1.ConfigMap); ok {
			for name := range c.Data {
				variable(c.Name, name)
			}
			if c.Data["EVENWEAVE_ETCD"] == "" || c.Data["EVENWEAVE_JOB"] == "" {
				t.Errorf("%s: EVENWEAVE_ETCD and EVENWEAVE_JOB must be set: %v", c.Name, c.Data)
			}
		}
	}
	for _, w := range d.workloads {
		c := w.pod.Containers[0]
		for _, e := range c.Env {
			variable(w.name, e.Name)
		}
		command := ""
		for _, arg := range c.Args {
			name, isFlag := strings.CutPrefix(arg, "--")
			if !isFlag {
				command = strings.TrimSpace(command + " " + arg)
			}
			if name, _, _ = strings.Cut(name, "="); isFlag && !flags[command][name] {
				t.Errorf("%s: evenweave %s has no flag --%s", w.name, command, name)
			}
		}
	}
}

// selected lists the workloads whose pods a selector matches.
func (d deployment) selected(t *testing.T, s *metav1.LabelSelector) (names []string) {
	for _, w := range d.workloads {
		if matches(t, s, w.labels) {
			names = append(names, w.name)
		}
	}
	return names
}

func matches(t *testing.T, s *metav1.LabelSelector, set map[string]string) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(labels.Set(set))
}

// portNumber finds a container's port by name or number; 0: there is none.
func portNumber(w workload, port string) int32 {
	for _, p := range w.pod.Containers[0].Ports {
		if p.Name == port || fmt.Sprint(p.ContainerPort) == port {
			return p.ContainerPort
		}
	}
	return 0
}
