package kubernetes

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

const certManagerModule = "github.com/cert-manager/cert-manager@v1.21.2"

// certManager gives the cluster the schemas of cert-manager's objects, from its Go module; false: they cannot be had.
func (t trial) certManager() bool {
	out, err := exec.CommandContext(t.ctx, "go", "mod", "download", "-json", certManagerModule).Output()
	var module struct{ Dir string }
	if err != nil || json.Unmarshal(out, &module) != nil {
		t.Logf("%s cannot be fetched here: its objects are not validated by its schemas", certManagerModule)
		return false
	}
	var files []string
	for _, kind := range []string{"certificates", "certificaterequests", "issuers"} {
		files = append(files, "-f", filepath.Join(module.Dir, "deploy", "crds", "cert-manager.io_"+kind+".yaml"))
	}
	t.do(append([]string{"apply", "--server-side"}, files...)...)
	t.Cleanup(func() { _, _ = kubectl(context.Background(), append([]string{"delete"}, files...)...) })
	for _, kind := range []string{"certificates", "certificaterequests", "issuers"} {
		t.do("wait", "--for=condition=Established", "--timeout=5m", "crd/"+kind+".cert-manager.io")
	}
	return true
}

// TestCertManager: cert-manager's own controllers, built from its Go module, make the certificates, renew them while a
// job trains, and the job ends with the weights of a calm run.
func TestCertManager(t *testing.T) {
	program := os.Getenv("EVENWEAVE_CERT_MANAGER")
	if program == "" {
		t.Skip("builds cert-manager, for 3 to 15 minutes: EVENWEAVE_TEST_CERT_MANAGER=1 make test-kubernetes")
	}
	x := newTrial(t)
	if _, err := kubectl(x.ctx, "apply", "-f", "base/namespace.yaml"); err != nil {
		t.Fatal(err)
	}
	if !x.certManager() {
		t.Fatal("no schemas")
	}
	controllers := exec.CommandContext(x.ctx, program, namespace)
	controllers.Cancel = func() error { return controllers.Process.Signal(syscall.SIGTERM) }
	said, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	controllers.Stdout, controllers.Stderr = said, said
	if err := controllers.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- controllers.Wait() }()
	t.Cleanup(func() { _ = controllers.Process.Signal(syscall.SIGTERM); t.Log("controllers:", <-ended) })

	x.volumes()
	const steps = 1200
	x.do("apply", "-k", overlayOf(t, withCertManager(t), "fashion", steps))
	x.do("wait", "--for=condition=Ready", "--timeout=5m", "certificates", "--all")
	x.trainsWith(1, 0)
	serial := func() string {
		return x.do("get", "secret", "evenweave-tls-worker", "-o", "jsonpath={.data.tls\\.crt}")
	}
	before := serial()
	x.do("patch", "certificate", "evenweave-worker", "--type=merge", "-p", `{"spec":{"duration":"700h"}}`)
	x.journal.await(x.ctx, "a renewed certificate", limit, func() bool { return serial() != before })
	x.do("scale", "deployment/evenweave-worker", "--replicas=3")
	x.trainsWith(3, x.journal.last().Step)
	x.finishAs("fashion", steps)
}
