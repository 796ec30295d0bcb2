#!/usr/bin/env bash
# `make test-kubernetes`: the dev overlay on a real cluster, by cluster_test.go. Needs bin/evenweave (for the run it is compared with).
#
#   KUBECONFIG=FILE EVENWEAVE_IMAGE=NAME:TAG    a cluster that is there, and an image that it can get
#   EVENWEAVE_KUBERNETES_KIT=DIR                a cluster that the scripts in DIR start (DIR/kubernetes/up.sh, load-image.sh, down.sh;
#                                               DIR/docker/up.sh where no container engine runs), with an image built here
#   EVENWEAVE_TEST_TASK=NAME:TAG    with the first: an image of a task of one's own (samples_test.go says which), for data on a volume
#   EVENWEAVE_TEST_DELETIONS=20 EVENWEAVE_TEST_STEPS=12000    measure more
#   EVENWEAVE_TEST_CERT_MANAGER=1    with cert-manager too, whose controllers it builds (3 to 15 minutes the first time)
#
# It uses the namespace `evenweave` and deletes it in the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=${EVENWEAVE_KUBERNETES_KIT:-}

skip() {
	echo "test-kubernetes: skipped: $*"
	exit 0
}

command -v kubectl >/dev/null || skip "kubectl is not installed"
if [ -z "${KUBECONFIG:-}" ]; then
	[ -n "$tools" ] || skip "no cluster: set KUBECONFIG and EVENWEAVE_IMAGE, or EVENWEAVE_KUBERNETES_KIT"
	[ -x "$tools/kubernetes/up.sh" ] || skip "no cluster: $tools/kubernetes/up.sh of EVENWEAVE_KUBERNETES_KIT cannot be run"
	docker info >/dev/null 2>&1 || { [ -x "$tools/docker/up.sh" ] && "$tools/docker/up.sh" >/dev/null; } || skip "no container engine to build the image with"
	export EVENWEAVE_IMAGE=${EVENWEAVE_IMAGE:-evenweave:test}
	docker build --quiet -f deploy/Dockerfile -t "$EVENWEAVE_IMAGE" . >/dev/null
	# Programs of one's own that need nothing of the image: static, on the "go" backend.
	for task in gpt:evenweave tabular:tabular; do
		CGO_ENABLED=0 GOEXPERIMENT=simd go build -C "examples/${task%:*}" -trimpath -o "$PWD/bin/task/${task#*:}" .
	done
	export EVENWEAVE_TEST_TASK=evenweave-task:test
	printf 'FROM %s\nCOPY evenweave tabular /usr/local/bin/\n' "$EVENWEAVE_IMAGE" |
		docker build --quiet -f - -t "$EVENWEAVE_TEST_TASK" bin/task >/dev/null
	trap '"$tools/kubernetes/down.sh"' EXIT
	KUBECONFIG=$("$tools/kubernetes/up.sh")
	export KUBECONFIG
	docker save "$EVENWEAVE_IMAGE" "$EVENWEAVE_TEST_TASK" quay.io/coreos/etcd:v3.6.16 | "$tools/kubernetes/load-image.sh" -
	# Its volumes are directories of root's that fsGroup does not change.
	export EVENWEAVE_TEST_VOLUMES='chmod 777 /var/lib/k8s-test/pv/*'
	export EVENWEAVE_TEST_KILL='ctr -a /run/k8s-test/containerd.sock -n k8s.io tasks kill -s SIGKILL "$ID"'
fi
: "${EVENWEAVE_IMAGE:?an image that the cluster of KUBECONFIG can get, NAME:TAG}"
kubectl version >/dev/null 2>&1 || skip "the cluster of $KUBECONFIG does not answer"
if [ "${EVENWEAVE_TEST_CERT_MANAGER:-}" = 1 ]; then
	export EVENWEAVE_CERT_MANAGER=$PWD/bin/certmanager
	go build -C deploy/kubernetes/certmanager -o "$EVENWEAVE_CERT_MANAGER" .
fi
GOEXPERIMENT=simd go test ./deploy/kubernetes -run 'TestCluster|TestDataOnAVolume|TestCertManager' -count=1 -v -timeout 60m
