package main

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRunIsItsUsersAlone: nothing that any process of a run makes is open to other users, whatever the umask.

func TestRunIsItsUsersAlone(t *testing.T) {
	data, dir := needData(t), filepath.Join(t.TempDir(), "run")
	inner := program(t, tiny(data, dir, "--workers", "2", "--steps", "8", "--checkpoint-every", "4")...)
	cmd := exec.Command("/bin/sh", append([]string{"-c", `umask 0; exec "$0" "$@"`}, inner.Args...)...)
	cmd.Dir, cmd.Env = inner.Dir, inner.Env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := 0
	if err := filepath.WalkDir(dir, func(at string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode()&fs.ModeSymlink == 0 && info.Mode()&0o077 != 0 {
			t.Errorf("%s has mode %s", at, info.Mode())
		}
		files++
		return err
	}); err != nil || files < 8 {
		t.Errorf("%d files, %v", files, err)
	}
}
