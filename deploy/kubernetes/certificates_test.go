package kubernetes

import (
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// keptIn is the role whose set a Secret holds, as this deployment's way of making certificates says; "": none.
func (d deployment) keptIn(secret string) string {
	for _, o := range d.objects {
		switch o := o.(type) {
		case *corev1.Secret:
			if o.Name == secret {
				return strings.TrimPrefix(secret, "evenweave-tls-")
			}
		case *certificate:
			if o.Spec.SecretName == secret && !o.Spec.IsCA {
				role, _, _ := strings.Cut(o.Spec.DNSNames[0], ".")
				return strings.Replace(role, "*", "etcd-peer", 1)
			}
		}
	}
	return ""
}

// A pod has the key of its own role alone, readable by it alone; what proves a role has the job's name in it, however
// the certificates are made; one account may change Secrets, those of certificates.
func (d deployment) testCertificates(t *testing.T) {
	job := ""
	for _, o := range d.objects {
		if c, ok := o.(*corev1.ConfigMap); ok && c.Data["EVENWEAVE_JOB"] != "" {
			job = c.Data["EVENWEAVE_JOB"]
			if c.Data["EVENWEAVE_INSECURE"] != "" || !strings.HasPrefix(c.Data["EVENWEAVE_ETCD"], "https://") {
				t.Errorf("%s: not over TLS: %v", c.Name, c.Data)
			}
		}
	}
	made := 0
	for _, w := range d.workloads {
		var roles []string
		for _, v := range w.pod.Volumes {
			if v.Secret == nil {
				continue
			}
			roles = append(roles, d.keptIn(v.Secret.SecretName))
			if v.Secret.DefaultMode == nil || *v.Secret.DefaultMode != 0o440 || w.pod.SecurityContext.FSGroup == nil {
				t.Errorf("%s: the key in %s is readable by others, or not by it", w.name, v.Name)
			}
		}
		want := map[string][]string{"worker": {"worker"}, "coordinator": {"coordinator"}, "etcd": {"etcd", "etcd-peer"},
			"certs": nil}[w.component()]
		if !slices.Equal(roles, want) {
			t.Errorf("%s holds the keys of %q, expected %q", w.name, roles, want)
		}
	}
	for _, o := range d.objects {
		switch o := o.(type) {
		case *certificate:
			made++
			if s := o.Spec; !s.IsCA && s.SecretName != "evenweave-tls-etcd-peer" &&
				s.DNSNames[0] != strings.TrimPrefix(s.SecretName, "evenweave-tls-")+"."+job+".evenweave.internal" {
				t.Errorf("Certificate %s: %q in %s", o.Name, s.DNSNames, s.SecretName)
			}
		case *podMonitor:
			for _, e := range o.Spec.PodMetricsEndpoints {
				if c := e.TLSConfig; c != nil && (d.keptIn(c.KeySecret.Name) != "metrics" ||
					c.ServerName != strings.TrimPrefix(o.Name, "evenweave-")+"."+job+".evenweave.internal") {
					t.Errorf("PodMonitor %s: %+v", o.Name, *c)
				}
			}
		case *rbacv1.Role:
			made++
			for _, r := range o.Rules {
				if !slices.Equal(r.Resources, []string{"secrets"}) || len(r.ResourceNames) == 0 ||
					slices.ContainsFunc(r.ResourceNames, func(n string) bool {
						return !strings.HasPrefix(n, "evenweave-tls-")
					}) || slices.Contains(r.Verbs, "list") {
					t.Errorf("Role %s: %+v", o.Name, r)
				}
			}
		}
	}
	if made == 0 || job == "" {
		t.Errorf("nothing makes certificates of job %q", job)
	}
}

// The names that etcd's nodes are dialled by are those that their certificate is made for.
func TestPeersAreNamedAlike(t *testing.T) {
	d := render(t, "overlays/production")
	for _, w := range d.workloads {
		for _, c := range w.pod.Containers {
			for _, arg := range c.Args {
				domain, ok := strings.CutPrefix(arg, "--etcd-peers=")
				if !ok {
					continue
				}
				for _, node := range d.peers(t) {
					if ok, err := path.Match("*."+domain, node); !ok || err != nil {
						t.Errorf("node %s is not below %s", node, domain)
					}
				}
				return
			}
		}
	}
	t.Error("nothing makes a set for etcd's nodes")
}

// peers are the names of etcd's nodes in ETCD_INITIAL_CLUSTER.
func (d deployment) peers(t *testing.T) (names []string) {
	t.Helper()
	for _, w := range d.workloads {
		for _, e := range w.pod.Containers[0].Env {
			if e.Name != "ETCD_INITIAL_CLUSTER" {
				continue
			}
			for node := range strings.SplitSeq(e.Value, ",") {
				_, url, _ := strings.Cut(node, "=https://")
				name, _, _ := strings.Cut(url, ":")
				names = append(names, name)
			}
		}
	}
	if len(names) != 3 {
		t.Errorf("etcd's nodes are %q, expected three over TLS", names)
	}
	return names
}
