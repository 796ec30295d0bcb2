package security_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

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

// TestSocketsOfKilledRunsAreRemoved when the next run makes its own: a directory of this user's that holds sockets
// alone, none of which has a process, and that is not just being made. Everything else stays.
func TestSocketsOfKilledRunsAreRemoved(t *testing.T) {
	parent, err := os.MkdirTemp("/tmp", "ew")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	t.Setenv("XDG_RUNTIME_DIR", parent)
	long := time.Now().Add(-2 * time.Minute)
	made := func(name string, sockets ...string) string {
		t.Helper()
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, s := range sockets {
			l, err := net.Listen("unix", filepath.Join(dir, s))
			if err != nil {
				t.Fatal(err)
			}
			if s == "live.sock" {
				t.Cleanup(func() { _ = l.Close() })
				continue
			}
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			_ = l.Close()
		}
		if err := os.Chtimes(dir, long, long); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dead := made("evenweave-dead", "etcd.sock", "w1.sock")
	stays := []string{made("evenweave-live", "etcd.sock", "live.sock"), made("evenweave-empty"),
		made("other-dead", "etcd.sock"), made("elsewhere", "etcd.sock")}
	young, open, file := made("evenweave-young", "etcd.sock"), made("evenweave-open", "etcd.sock"),
		made("evenweave-file", "etcd.sock")
	link, target := filepath.Join(parent, "evenweave-link"), made("evenweave-file2", "etcd.sock")
	err = errors.Join(os.Chtimes(young, time.Now(), time.Now()), os.Chmod(open, 0o755),
		os.WriteFile(file+"/data", nil, 0o600), os.Symlink(filepath.Join(parent, "elsewhere"), link),
		os.Symlink("/dev/null", target+"/link.sock"), os.Chtimes(file, long, long), os.Chtimes(target, long, long))
	if os.Geteuid() == 0 {
		foreign := made("evenweave-foreign", "etcd.sock")
		err, stays = errors.Join(err, os.Lchown(foreign, 65534, 65534)), append(stays, foreign)
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, err := security.MakeSockets()
	if err != nil || filepath.Dir(dir) != parent {
		t.Fatal(dir, err)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory of a killed run: %v", err)
	}
	for _, d := range append(stays, young, open, file, target) {
		if left, err := os.ReadDir(d); err != nil || len(left) == 0 && d != filepath.Join(parent, "evenweave-empty") {
			t.Errorf("%s: %d files are left, %v", d, len(left), err)
		}
	}
}
