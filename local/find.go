package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Find reads the record of the cluster that runs in a directory.
func Find(dir string) (Record, error) {
	var r Record
	b, err := os.ReadFile(filepath.Join(dir, "run.json"))
	if errors.Is(err, os.ErrNotExist) {
		if err := Over(dir); err != nil {
			return r, err
		}
		return r, fmt.Errorf("no run is recorded in %s: start one with `evenweave train --dir %s`", dir, dir)
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && errors.Is(syscall.Kill(r.PID, 0), syscall.ESRCH) { // another user's may not be signalled, and runs
		err = over(dir)
	}
	return r, err
}

// Over is an error that says so if a run was in the directory and is not any more: its lock is there, and free. The pid in the record proves nothing
// while it exists: another process may have it, and in a container every run has the same. To look takes the lock for a moment, so this is
// for when the cluster does not answer.
func Over(dir string) error {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return nil
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil {
		return nil
	}
	return over(dir)
}

func over(dir string) error {
	return fmt.Errorf("the run in %s is over: `evenweave train --dir %s` goes on from its newest checkpoint", dir, dir)
}
