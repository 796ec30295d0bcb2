package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"evenweave/internal/local"
	"evenweave/internal/security"
)

// beNeighbour makes this binary another user of the machine.
const beNeighbour = "be-a-neighbour"

// neighbour tries what another user would, and prints what succeeds. public is a socket that every user may use, and
// checkpoint a file of the run's directory.
func neighbour(sockets, public, checkpoint string) {
	run := filepath.Dir(filepath.Dir(checkpoint))
	for what, try := range map[string]func() error{
		"dialled the public socket": func() error { return dials(public) },
		"dialled etcd":              func() error { return dials(sockets + "/etcd.sock") },
		"dialled the coordinator":   func() error { return dials(sockets + "/coordinator.sock") },
		"listed the sockets":        func() error { _, err := os.ReadDir(sockets); return err },
		"removed etcd's socket":     func() error { return os.Remove(sockets + "/etcd.sock") },
		"moved the sockets away":    func() error { return os.Rename(sockets, sockets+"-moved") },
		"removed the directory":     func() error { return os.RemoveAll(sockets) },
		"put a socket there": func() error {
			l, err := net.Listen("unix", sockets+"/w9-0000.sock")
			if err == nil {
				_ = l.Close()
			}
			return err
		},
		"opened it for others": func() error { return os.Chmod(sockets, 0o777) },
		"read a checkpoint":    func() error { _, err := os.ReadFile(checkpoint); return err },
		"listed the run":       func() error { _, err := os.ReadDir(run); return err },
		"opened the lock":      func() error { _, err := os.Open(run + "/lock"); return err },
		"read where etcd is":   func() error { _, err := os.ReadFile(run + "/run.json"); return err },
	} {
		if try() == nil {
			fmt.Println(what)
		}
	}
}

func dials(socket string) error {
	c, err := net.Dial("unix", socket)
	if err == nil {
		_ = c.Close()
	}
	return err
}

// TestOnlyThePageIsReachable: while a run trains, its processes listen on one TCP port, the page's, and another user
// neither reaches nor blocks the sockets that they talk over, nor reads what the run keeps. The commands for the run
// find them.
func TestOnlyThePageIsReachable(t *testing.T) {
	data, dir := needData(t), t.TempDir()
	free, err := local.PageAddress("127.0.0.1:0") // which no outgoing connection takes meanwhile
	if err != nil {
		t.Fatal(err)
	}
	page := fmt.Sprintf("0100007F:%04X", netip.MustParseAddrPort(free).Port())
	signalAt(t, 3, func(train *os.Process) {
		defer func() { _ = train.Signal(os.Interrupt) }()
		run, err := local.Find(dir)
		if err != nil {
			t.Error(err)
			return
		}
		processes := append(childrenOf(t, train.Pid), train.Pid)
		if open := listeners(t, processes); len(open) != 1 || open[0] != page {
			t.Errorf("the processes %v listen at %v, want the page's %s alone", processes, open, page)
		}
		etcd, ok := security.SocketPath(run.Etcd)
		if !ok {
			t.Errorf("etcd is at %s", run.Etcd)
			return
		}
		for _, asked := range [][]string{{"status", "--dir", dir}, {"status", "--etcd", run.Etcd},
			{"blame", "--dir", dir},
			{"scale", "3", "--dir", dir}} {
			if out, err := program(t, asked...).CombinedOutput(); err != nil ||
				strings.Contains(string(out), "no answer") {
				t.Errorf("%v: %v\n%s", asked, err, out)
			}
		}
		checkpoints, err := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*.ckpt")) // the initial one at least
		if err != nil || len(checkpoints) == 0 {
			t.Errorf("no checkpoint is in %s: %v", dir, err)
			return
		}
		tryAsNeighbour(t, filepath.Dir(etcd), checkpoints[0])
	}, tiny(data, dir, "--workers", "2", "--steps", endless, "--http", free)...)
}

func tryAsNeighbour(t *testing.T, sockets, checkpoint string) {
	if os.Geteuid() != 0 {
		t.Log("not tried as another user: only root can")
		return
	}
	public := filepath.Join(os.TempDir(), filepath.Base(sockets)+"-public")
	l, err := net.Listen("unix", public)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	if err := os.Chmod(public, 0o777); err != nil {
		t.Error(err)
	}
	cmd := exec.Command("/proc/self/exe", beNeighbour, sockets, public, checkpoint)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "dialled the public socket\n" {
		t.Errorf("another user: %v\n%s", err, out)
	}
}

// listeners are the addresses at which processes accept TCP connections.
func listeners(t *testing.T, pids []int) (open []string) {
	t.Helper()
	owned := map[string]bool{}
	for _, pid := range pids {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil {
				owned[to] = true
			}
		}
	}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil && table == "/proc/net/tcp" {
			t.Error(err)
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && owned["socket:["+f[9]+"]"] {
				open = append(open, f[1])
			}
		}
	}
	return open
}
