package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"evenweave/internal/regular"
)

const maxRecord = 64 << 10 // bytes of run.json

// Find reads the record of the cluster that runs in a directory.
func Find(dir string) (Record, error) {
	var r Record
	b, err := regular.Read(filepath.Join(dir, "run.json"), maxRecord)
	if errors.Is(err, os.ErrNotExist) {
		if err := Over(dir); err != nil {
			return r, err
		}
		if _, err := os.Lstat(filepath.Join(dir, "lock")); err == nil {
			return r, fmt.Errorf("the run in %s begins or ends right now: try again in a second", dir)
		}
		return r, fmt.Errorf("no run is recorded in %s: start one with `evenweave train --dir %s`", dir, dir)
	}
	if err != nil {
		return r, err
	}
	if err := Over(dir); err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%s, the record of the live run: %w", filepath.Join(dir, "run.json"), err)
	}
	return r, nil
}

// Over returns an error that says so if the directory's run is over: the lock file exists and is free. A live process
// with the recorded pid proves nothing: pids are reused, and in a container every run has the same one. Over holds the
// lock for a moment; a run that starts then waits for it.
func Over(dir string) error {
	f, _, err := regular.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return nil
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
		return nil
	}
	return fmt.Errorf("the run in %s is over: `evenweave train --dir %s` goes on with it", dir, dir)
}

// Hold locks a run directory while a command changes its files, so that no run starts, nor a coordinator. It fails if
// one is live there. A directory without a lock file never had a run; coordinators share a lock of the directory.
func Hold(dir string) (release func() error, err error) {
	held, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return func() error { return nil }, nil
	}
	if err != nil {
		return nil, err
	}
	release = held.Close
	if _, err := os.Lstat(filepath.Join(dir, "lock")); err == nil { // first: it names the run
		d, err := take(dir)
		if err != nil {
			return nil, errors.Join(err, held.Close())
		}
		release = func() error { return errors.Join(d.close(), held.Close()) }
	}
	if regular.Lock(held, 100*time.Millisecond) == regular.ErrLocked { // else the file system may have no locks
		return nil, errors.Join(fmt.Errorf("directory %s is in use by a coordinator, or by another command that "+
			"changes its files: stop that one first", dir), release())
	}
	return release, nil
}
