package local

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/internal/security"
)

// TestEtcdIsAwaited: no process gets an endpoint before etcd listens there; an etcd that never does ends the run with
// its reason; an interrupt ends the wait.
func TestEtcdIsAwaited(t *testing.T) {
	script := filepath.Join(t.TempDir(), "etcd")
	const etcd = `#!/bin/sh
case "$*" in
*--listen=broken*) echo "error: embedded etcd: damaged" >&2; exit 1 ;;
esac
echo listening
exec sleep 600`
	if err := os.WriteFile(script, []byte(etcd), 0o700); err != nil {
		t.Fatal(err)
	}
	s := newTroupe(t, script)
	if err := s.startEtcd(t.Context(), nil, "good"); err != nil || len(s.live) != 1 {
		t.Errorf("%v, %d processes", err, len(s.live))
	}
	var exit *Exit
	if err := newTroupe(t, script).startEtcd(t.Context(), nil, "broken"); !errors.As(err, &exit) ||
		!strings.Contains(exit.Tail, "damaged") {
		t.Errorf("broken: %v", err)
	}
	interrupt := make(chan struct{})
	close(interrupt)
	if err := newTroupe(t, "/bin/true").startEtcd(t.Context(), interrupt, "silent"); !errors.As(err, &exit) ||
		exit.Code != 130 {
		t.Errorf("interrupted: %v", err)
	}
}

// TestSocketsOfAKilledRunAreRemoved, and nothing else, whatever its record names.
func TestSocketsOfAKilledRunAreRemoved(t *testing.T) {
	path := t.TempDir()
	d := ran(t, path)
	defer d.close()
	sockets := killedSockets(t)
	innocent := filepath.Join(t.TempDir(), "evenweave-1")
	if err := errors.Join(os.Mkdir(innocent, 0o700), os.WriteFile(innocent+"/data", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{sockets, innocent, "/no/such"} {
		if err := d.record(Record{Etcd: "unix:" + filepath.Join(dir, "etcd.sock")}); err != nil {
			t.Fatal(err)
		}
		d.tidy()
	}
	if _, err := os.Lstat(sockets); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the sockets of the killed run: %v", err)
	}
	if _, err := os.Stat(innocent + "/data"); err != nil {
		t.Error(err)
	}
}

// killedSockets is a directory with a socket that its process has left.
func killedSockets(t *testing.T) string {
	t.Helper()
	dir, err := security.MakeSockets()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { security.RemoveSockets(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "etcd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	return dir
}
