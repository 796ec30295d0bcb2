package security_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"evenweave/internal/security"
)

// sockets is a directory of sockets, and the transport of the cluster in it.
func sockets(t *testing.T) (string, *security.Transport) {
	t.Helper()
	dir, err := security.MakeSockets()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		security.RemoveSockets(dir)
		if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left: %v", err)
		}
	})
	return dir, security.For([]string{"unix:" + dir + "/etcd.sock"})
}

// TestSocketsAreTheirUsersAlone, whatever the umask; a parent in which another user could replace them is not used.
func TestSocketsAreTheirUsersAlone(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	open, long := t.TempDir(), filepath.Join(t.TempDir(), strings.Repeat("x", 80))
	if err := errors.Join(os.Chmod(open, 0o777), os.Mkdir(long, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, unfit := range []string{open, long, "relative", "/no/such/directory"} {
		t.Setenv("XDG_RUNTIME_DIR", unfit)
		t.Setenv("TMPDIR", unfit)
		dir, over := sockets(t)
		if filepath.Dir(dir) != "/tmp" {
			t.Errorf("made in %s, which is unfit", unfit)
		}
		l, err := over.Listen("unix:w1.sock")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]os.FileMode{dir: 0o700, dir + "/w1.sock": 0o600} {
			if info, err := os.Lstat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v; want mode %v", name, info.Mode(), err, want)
			}
		}
		if address, ok := security.Address(l.Addr()); !ok || address != "unix:w1.sock" {
			t.Errorf("its address is %q", address)
		}
		_ = l.Close()
	}
}

// TestADeadProcessesSocketIsReplaced, and says that it is refused; a live one's is not, nor a file that is no socket.
func TestADeadProcessesSocketIsReplaced(t *testing.T) {
	dir, over := sockets(t)
	dead, err := over.Listen("unix:w1.sock")
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = dead.Close()
	for _, address := range []string{"unix:w1.sock", "unix:never.sock"} {
		if _, err := over.Dial(t.Context(), address); !security.Refused(err) {
			t.Errorf("%s: %v, want a refusal", address, err)
		}
	}
	live, err := over.Listen("unix:w1.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if _, err := over.Listen("unix:w1.sock"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second process at a live one's socket: %v", err)
	}
	c, err := over.Dial(t.Context(), "unix:w1.sock")
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	precious := dir + "/w2.sock"
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := over.Listen("unix:w2.sock"); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, _ := os.ReadFile(precious); string(b) != "precious" {
		t.Errorf("the file holds %q", b)
	}
	_ = os.Remove(precious)
}

// TestAddressesLeadNowhereElse: a record cannot make a process dial a socket outside of its cluster's directory, nor
// any in a cluster over TCP.
func TestAddressesLeadNowhereElse(t *testing.T) {
	dir, over := sockets(t)
	outside := dir + "-outside"
	l, err := net.Listen("unix", outside)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, address := range []string{"unix:" + outside, "unix:../" + filepath.Base(outside), "unix://" + outside,
		"unix:" + filepath.Base(outside), "unix:@abstract", "unix:../x.sock"} {
		if c, err := over.Dial(t.Context(), address); err == nil {
			t.Errorf("%q was dialled: %v", address, c.RemoteAddr())
		}
		if l, err := over.Listen(address); err == nil {
			t.Errorf("%q is listened at: %v", address, l.Addr())
		}
	}
	inside, err := over.Listen("unix:w1.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer inside.Close()
	remote := security.For([]string{"http://127.0.0.1:2379"})
	if _, err := remote.Dial(t.Context(), "unix:w1.sock"); err == nil || !strings.Contains(err.Error(), "over TCP") {
		t.Errorf("a cluster over TCP: %v", err)
	}
}
