package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"evenweave/internal/regular"
	"evenweave/internal/security"
)

// Record is what `evenweave status --dir` and other commands need to find a running cluster. It is DIR/run.json.
type Record struct {
	PID  int    `json:"pid"`
	Etcd string `json:"etcd"`
	Job  string `json:"job"`
}

// directory is a run directory that this process has taken.
type directory struct {
	path string
	held *os.File // the lock; the kernel releases it when the process ends
}

// take makes the directory or removes other users' access to it, and locks it for this process.
func take(path string) (directory, error) {
	d := directory{path: path}
	err := own(path)
	if err == nil {
		d.held, err = regular.Write(filepath.Join(path, "lock"))
	}
	if err != nil {
		return d, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	if err := d.lock(); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(d.held, 20))
		_ = d.held.Close()
		return d, fmt.Errorf(
			"run directory %s is in use by a live run (pid %s): stop that one, or choose another --dir",
			path, strings.TrimSpace(string(holder)))
	}
	_ = d.held.Truncate(0)
	if _, err = d.held.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err == nil {
		err = os.Mkdir(filepath.Join(path, "logs"), 0o700)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return d, errors.Join(fmt.Errorf("run directory: %w", err), d.close())
	}
	return d, nil
}

// lock retries for a moment, because [Over] may hold the lock for one.
func (d directory) lock() error { return regular.Lock(d.held, 100*time.Millisecond) }

func (d directory) close() error { return d.held.Close() }

// record publishes the run for other commands, until forget.
func (d directory) record(r Record) error { return d.write("run.json", r) }

// write replaces a file.
func (d directory) write(name string, content any) error {
	b, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return regular.Replace(filepath.Join(d.path, name), b)
}

// tidy removes the sockets of a run that was killed here.
func (d directory) tidy() {
	b, err := regular.Read(filepath.Join(d.path, "run.json"), maxRecord)
	var r Record
	if err != nil || json.Unmarshal(b, &r) != nil {
		return
	}
	if path, ok := security.SocketPath(r.Etcd); ok {
		security.RemoveSockets(filepath.Dir(path))
	}
}

func (d directory) forget() { _ = os.Remove(filepath.Join(d.path, "run.json")) }

// lost returns an error if the directory at the path is no longer the one that was locked.
func (d directory) lost() error {
	name := filepath.Join(d.path, "lock")
	now, err := os.Lstat(name)
	then, known := d.held.Stat()
	switch {
	case known != nil || err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil // nothing is known
	case err != nil:
		return fmt.Errorf("the run directory %s was deleted while the run goes on: its metrics, logs and run.json "+
			"are lost; checkpoints that come now are kept in a new one", d.path)
	case !os.SameFile(now, then):
		return fmt.Errorf("the run directory %s was replaced while the run goes on: its metrics, logs and run.json "+
			"are in the one before; another run may use this one", d.path)
	}
	return nil
}

// own makes the directory for this user alone. It refuses one that another user can write to.
func own(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	owner, me := info.Sys().(*syscall.Stat_t), os.Geteuid()
	mode := info.Mode().Perm()
	foreign := int(owner.Uid) != me && owner.Uid != 0
	if others := mode&0o002 != 0 || mode&0o020 != 0 && int(owner.Gid) != os.Getegid() && owner.Gid != 0; foreign ||
		others {
		return fmt.Errorf("%s belongs to user %d (group %d) and has mode %04o: expected one that belongs to user %d "+
			"and that no other user can write to", path, owner.Uid, owner.Gid, mode, me)
	}
	if mode&0o077 == 0 || int(owner.Uid) != me {
		return nil
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	// a directory with other files (a home) keeps its mode; the run's own files are for this user alone
	for _, n := range names {
		if n.Name() == "lock" {
			names = nil
			break
		}
	}
	if len(names) > 0 {
		return nil
	}
	return os.Chmod(path, 0o700)
}
