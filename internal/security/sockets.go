package security

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A socket's path has at most 103 bytes on macOS, 107 on Linux. The names in the directory are short.
const maxDirectory = 72

const socketPrefix = "evenweave-"

// abandonedAfter is how old the directory of a killed run is before it is removed: a run that starts has sockets that
// refuse connections too.
const abandonedAfter = time.Minute

// MakeSockets makes a directory for the sockets of a cluster. Only the caller can enter it, and its path is short: the
// run directory may be neither, or on a file system without sockets. It removes those that killed runs have left
// beside it.
func MakeSockets() (dir string, err error) {
	var why []string
	for _, parent := range []string{os.Getenv("XDG_RUNTIME_DIR"), os.TempDir(), "/tmp"} {
		if parent == "" {
			continue
		}
		if err := safe(parent); err != nil {
			why = append(why, err.Error())
			continue
		}
		sweep(parent)
		dir, err := os.MkdirTemp(parent, socketPrefix)
		if err == nil {
			if err = os.Chmod(dir, 0o700); err == nil { // whatever the umask
				return dir, nil
			}
		}
		why = append(why, err.Error())
	}
	return "", fmt.Errorf("no directory for the sockets of this run: %s; name a usable one in TMPDIR",
		strings.Join(why, "; "))
}

// safe returns an error if another user could replace a directory in parent, or paths in it are too long.
func safe(parent string) error {
	if !filepath.IsAbs(parent) || len(parent)+len(socketPrefix)+10 > maxDirectory {
		return fmt.Errorf("%s: expected an absolute path of at most %d bytes", parent,
			maxDirectory-len(socketPrefix)-10)
	}
	info, err := os.Stat(parent)
	if err != nil {
		return err
	}
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != 0 && owner != os.Geteuid() || info.Mode()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("%s belongs to user %d and has mode %v: other users could replace what is in it", parent,
			owner, info.Mode())
	}
	return nil
}

// sweep removes what killed runs of this user have left.
func sweep(parent string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries { // e.IsDir: no link is followed
		if dir := filepath.Join(parent, e.Name()); e.IsDir() && strings.HasPrefix(e.Name(), socketPrefix) &&
			abandoned(dir) {
			RemoveSockets(dir)
		}
	}
}

// abandoned reports whether a directory holds only sockets, none of them new, and no process listens at any of them.
func abandoned(dir string) bool {
	info, err := os.Lstat(dir)
	if err != nil || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() ||
		time.Since(info.ModTime()) < abandonedAfter {
		return false
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) == 0 {
		return false
	}
	for _, e := range left {
		if e.Type() != fs.ModeSocket {
			return false
		}
		c, err := net.Dial("unix", filepath.Join(dir, e.Name()))
		if err == nil {
			_ = c.Close()
		}
		if !Refused(err) {
			return false
		}
	}
	return true
}

// RemoveSockets removes a directory that MakeSockets has made, in this process or in one that was killed. It removes
// nothing else: the path may come from a file.
func RemoveSockets(dir string) {
	info, err := os.Lstat(dir)
	if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 ||
		!strings.HasPrefix(filepath.Base(dir), socketPrefix) ||
		int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		return
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range left {
		if e.Type() == fs.ModeSocket {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}
