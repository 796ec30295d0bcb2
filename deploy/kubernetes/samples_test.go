package kubernetes

import (
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
