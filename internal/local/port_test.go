package local

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestTakenPortIsChosenAgain: another process took a port after it was chosen. No process gets an address that is not
// etcd's.
func TestTakenPortIsChosenAgain(t *testing.T) {
	script := filepath.Join(t.TempDir(), "etcd")
	const etcd = `#!/bin/sh
case "$*" in
*--client=taken*) echo "error: embedded etcd: listen tcp $2: bind: address already in use" >&2; exit 1 ;;
*--client=broken*) echo "error: embedded etcd: damaged" >&2; exit 1 ;;
esac
echo listening
exec sleep 600`
	if err := os.WriteFile(script, []byte(etcd), 0o700); err != nil {
		t.Fatal(err)
	}
	choices := func(ports ...string) func() (string, string, error) {
		return func() (string, string, error) {
			port := ports[0]
			if len(ports) > 1 {
				ports = ports[1:]
			}
			return port, "peer", nil
		}
	}
	s := newTroupe(t, script)
	if client, err := s.startEtcd(t.Context(), nil, choices("taken-1", "taken-2", "free")); err != nil ||
		client != "free" || len(s.live) != 1 {
		t.Errorf("got %q, %v, %d processes", client, err, len(s.live))
	}
	for port, want := range map[string]string{"taken": "taken 8 times", "broken": "damaged"} {
		var exit *Exit
		if _, err := newTroupe(t, script).startEtcd(t.Context(), nil, choices(port)); !errors.As(err, &exit) ||
			!strings.Contains(exit.Tail, want) {
			t.Errorf("%s: %v, want %q", port, err, want)
		}
	}
	interrupt := make(chan struct{})
	close(interrupt)
	var exit *Exit
	if _, err := newTroupe(t, "/bin/true").startEtcd(t.Context(), interrupt, choices("silent")); !errors.As(err,
		&exit) || exit.Code != 130 {
		t.Errorf("interrupted: %v", err)
	}
}

// TestEtcdSaysThatItsPortIsTaken, in the words that are waited for, and does not say that it listens.
func TestEtcdSaysThatItsPortIsTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	free, _, err := FreePorts()
	if err != nil {
		t.Fatal(err)
	}
	for _, ports := range [][2]string{{l.Addr().String(), free}, {free, l.Addr().String()}} {
		var said bytes.Buffer
		err := ServeEtcd(t.Context(), t.TempDir(), ports[0], ports[1], &said)
		if err == nil || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) || said.Len() > 0 {
			t.Errorf("%v: said %q, %v", ports, said.String(), err)
		}
	}
}
