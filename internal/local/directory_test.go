package local

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"evenweave/internal/regular"
)

const otherUser = 65534

// openMask makes what is created as open as its maker allows, until the test ends.
func openMask(t *testing.T) {
	old := syscall.Umask(0)
	t.Cleanup(func() { syscall.Umask(old) })
}

func taken(t *testing.T, path string) directory {
	t.Helper()
	d, err := take(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.close() })
	return d
}

// ran takes a directory and makes what a run makes there.
func ran(t *testing.T, path string) directory {
	t.Helper()
	d := taken(t, path)
	if err := d.record(Record{PID: os.Getpid(), Etcd: "http://127.0.0.1:1", Job: "test"}); err != nil {
		t.Fatal(err)
	}
	if err := launchNothing(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("/nowhere was started: %v", err)
	}
	return d
}

// launchNothing opens the log of a worker, and starts a program that is not there.
func launchNothing(path string) error {
	s := &supervisor{cfg: Config{Dir: path, Executable: "/nowhere"}, now: time.Now, starts: make(chan func())}
	var starter sync.WaitGroup
	starter.Go(func() {
		for start := range s.starts {
			start()
		}
	})
	defer starter.Wait()
	defer close(s.starts)
	return s.launch(&process{name: "worker-1"})
}

// TestRunDirectoryIsClosed: whatever the umask and an earlier mode, a run directory and its files are their user's
// alone.
func TestRunDirectoryIsClosed(t *testing.T) {
	openMask(t)
	for name, prepare := range map[string]func(path string) error{
		"new":   func(string) error { return nil },
		"empty": func(path string) error { return os.Mkdir(path, 0o755) },
		"earlier": func(path string) error {
			return errors.Join(os.Mkdir(path, 0o755), os.WriteFile(path+"/lock", nil, 0o600))
		},
	} {
		path := filepath.Join(t.TempDir(), name)
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		ran(t, path)
		_ = filepath.WalkDir(path, func(at string, e fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			if info, _ := e.Info(); info.Mode()&0o077 != 0 {
				t.Errorf("%s: %s has mode %s", name, at, info.Mode())
			}
			return nil
		})
	}
	home := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(home, "other"), nil, 0o644), os.Chmod(home, 0o755)); err != nil {
		t.Fatal(err)
	}
	ran(t, home)
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("a directory with other things: %v, %v", info.Mode(), err)
	}
}

// TestForeignDirectoryIsRefused: another user could put files where the run reads them.
func TestForeignDirectoryIsRefused(t *testing.T) {
	refused := func(path string, want ...string) {
		t.Helper()
		d, err := take(path)
		if err == nil {
			_ = d.close()
			t.Errorf("%s was taken", path)
			return
		}
		for _, w := range append(want, path, "--dir") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v does not say %q", err, w)
			}
		}
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	refused(open, "mode 0777")
	if os.Geteuid() != 0 {
		t.Skip("directories of other users: only root can make them")
	}
	foreign, group := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Chown(foreign, otherUser, otherUser), os.Chown(group, 0, otherUser),
		os.Chmod(group, 0o770)); err != nil {
		t.Fatal(err)
	}
	refused(foreign, "user 65534", "expected one that belongs to user 0")
	refused(group, "group 65534", "mode 0770")
}

// TestNoLinkIsFollowed: what is behind a link of a name that the run uses keeps its contents.
func TestNoLinkIsFollowed(t *testing.T) {
	precious := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, refused := range map[string]bool{"lock": true, "logs/worker-1.log": true, "run.json": false} {
		path := t.TempDir()
		if err := errors.Join(os.MkdirAll(path+"/logs", 0o700),
			os.Symlink(precious, filepath.Join(path, name))); err != nil {
			t.Fatal(err)
		}
		d, err := take(path)
		if err == nil {
			err = errors.Join(launchNothing(path), d.record(Record{Job: "test"}), d.close())
		}
		if isLink := err != nil && strings.Contains(err.Error(), "is a link"); isLink != refused {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
			t.Fatalf("%s: the file behind the link holds %q, %v", name, b, err)
		}
	}
}

// TestNeighbourCannotHoldTheLock, nor read anything.
func TestNeighbourCannotHoldTheLock(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("acting as another user: only root can")
	}
	openMask(t)
	above := t.TempDir()
	if err := errors.Join(os.Chmod(filepath.Dir(above), 0o755), os.WriteFile(above+"/public", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(above, "run")
	ran(t, path)
	reads := func(name string) error {
		cmd := exec.Command("/bin/sh", "-c", `exec 9<"$0"`, name)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: otherUser, Gid: otherUser}}
		return cmd.Run()
	}
	if err := reads(above + "/public"); err != nil {
		t.Skipf("another user cannot read even a public file here: %v", err)
	}
	if err := os.Chmod(path, 0o755); err != nil { // as in a directory with other things, which stays open
		t.Fatal(err)
	}
	for _, name := range []string{"lock", "run.json", "logs/worker-1.log"} {
		if reads(filepath.Join(path, name)) == nil {
			t.Errorf("another user can open %s", name)
		}
	}
}

// TestFindAsksTheLock: a killed run's record does not count, even if another process has its process id now. Finding a
// run stops no run.
func TestFindAsksTheLock(t *testing.T) {
	path := t.TempDir()
	d := ran(t, path)
	if r, err := Find(path); err != nil || r.Job != "test" {
		t.Errorf("a live run: %v, %v", r, err)
	}
	_ = d.close()
	if _, err := Find(path); err == nil || !strings.Contains(err.Error(), "is over") {
		t.Errorf("a run that is over: %v", err)
	}
	var asking sync.WaitGroup
	stop := make(chan struct{})
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = Find(path)
			}
		}
	})
	for range 100 {
		d, err := take(path)
		if err != nil {
			t.Error(err)
			break
		}
		_ = d.close()
	}
	close(stop)
	asking.Wait()
}

// TestLostDirectoryIsNamed: deleted or replaced while the run goes on.
func TestLostDirectoryIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run")
	d := taken(t, path)
	says := func(want string) {
		t.Helper()
		if err := d.lost(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	says("")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	says("deleted")
	taken(t, path)
	says("replaced")
}

// TestNothingStartsInALostDirectory: a process that ran for long, and whose log cannot be opened any more, is given up
// like any other.
func TestNothingStartsInALostDirectory(t *testing.T) {
	s := newTroupe(t, "")
	if err := os.RemoveAll(filepath.Join(s.cfg.Dir, "logs")); err != nil {
		t.Fatal(err)
	}
	p := &process{name: "etcd", started: time.Now().Add(-time.Hour)}
	s.procs["etcd"] = p
	s.start(p)
	for range quickDeaths {
		if done, err := s.exited(s.next()); done {
			if !strings.Contains(err.Error(), "etcd.log") {
				t.Errorf("ended with %v", err)
			}
			return
		}
	}
	t.Errorf("started again after %d ends", quickDeaths)
}

// What changes a run's files from outside stays out while the run is live, and keeps runs out meanwhile.
func TestHoldKeepsRunsOut(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if release, err := Hold(dir); err != nil || release() != nil {
		t.Errorf("no directory of a run: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("holding has made the directory: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	coordinator, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := regular.Share(coordinator, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(dir); err == nil || !strings.Contains(err.Error(), "is in use by a coordinator") {
		t.Errorf("held while a coordinator is live: %v", err)
	}
	if err := coordinator.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := take(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Hold(dir); err == nil || !strings.Contains(err.Error(), "is in use by a live run") {
		t.Errorf("held while a run is live: %v", err)
	}
	if err := live.close(); err != nil {
		t.Fatal(err)
	}
	release, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := take(dir); err == nil {
		t.Error("a run began while the directory was held")
	}
	if err := release(); err != nil {
		t.Error(err)
	}
}
