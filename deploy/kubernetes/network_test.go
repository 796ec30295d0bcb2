package kubernetes

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// The policies allow exactly the connections that the processes need: checked for every pair of components and every
// port.
func (d deployment) testNetwork(t *testing.T, monitoring bool) {
	want := []string{"coordinator->etcd:client", "coordinator->worker:ring",
		"etcd->etcd:peer", "worker->coordinator:grpc", "worker->etcd:client", "worker->worker:ring"}
	var got, fromOutside []string
	for _, to := range d.workloads {
		for _, port := range to.pod.Containers[0].Ports {
			for _, from := range d.workloads {
				if d.allowed(t, networkingv1.PolicyTypeEgress, from, to, to, port) &&
					d.allowed(t, networkingv1.PolicyTypeIngress, to, from, to, port) {
					got = append(got, fmt.Sprintf("%s->%s:%s", from.component(), to.component(), port.Name))
				}
			}
			if d.reachableFrom(t, to, port, "monitoring") {
				fromOutside = append(fromOutside, to.component()+":"+port.Name)
			}
		}
	}
	slices.Sort(got)
	if !reflect.DeepEqual(got, want) {
		t.Errorf("policies allow\n  %v\nthe processes need\n  %v", got, want)
	}
	slices.Sort(fromOutside)
	pages := []string{"coordinator:https", "etcd:metrics", "worker:https"}
	if monitoring && !reflect.DeepEqual(fromOutside, pages) || !monitoring && len(fromOutside) > 0 {
		t.Errorf("Prometheus may reach %v", fromOutside)
	}
}

// allowed reports whether a policy on `subject` lets it exchange with `peer` on a port of `server`; all pods are denied
// by default.
func (d deployment) allowed(t *testing.T, direction networkingv1.PolicyType, subject, peer, server workload,
	port corev1.ContainerPort) bool {
	return d.anyRule(t, direction, subject, server, port, func(p networkingv1.NetworkPolicyPeer) bool {
		return p.NamespaceSelector == nil && p.IPBlock == nil && matches(t, p.PodSelector, peer.labels)
	})
}

// reachableFrom reports whether a pod of another namespace may connect.
func (d deployment) reachableFrom(t *testing.T, server workload, port corev1.ContainerPort, namespace string) bool {
	return d.anyRule(t, networkingv1.PolicyTypeIngress, server, server, port,
		func(p networkingv1.NetworkPolicyPeer) bool {
			return p.NamespaceSelector != nil &&
				matches(t, p.NamespaceSelector, map[string]string{"kubernetes.io/metadata.name": namespace})
		})
}

func (d deployment) anyRule(t *testing.T, direction networkingv1.PolicyType, subject, server workload,
	port corev1.ContainerPort, peer func(networkingv1.NetworkPolicyPeer) bool) bool {
	t.Helper()
	denied, allowed := false, false
	rule := func(ports []networkingv1.NetworkPolicyPort, peers []networkingv1.NetworkPolicyPeer) {
		if slices.ContainsFunc(peers, peer) && slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
			return portNumber(server, p.Port.String()) == port.ContainerPort
		}) {
			allowed = true
		}
	}
	for _, o := range d.objects {
		p, ok := o.(*networkingv1.NetworkPolicy)
		if !ok || !matches(t, &p.Spec.PodSelector, subject.labels) || !slices.Contains(p.Spec.PolicyTypes, direction) {
			continue
		}
		denied = true
		if direction == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				rule(r.Ports, r.From)
			}
		} else {
			for _, r := range p.Spec.Egress {
				rule(r.Ports, r.To)
			}
		}
	}
	return !denied || allowed
}
