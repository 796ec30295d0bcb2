package backend

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"evenweave/internal/regular"
)

// imagePlugin is the SHA-256 of the plug-in without symbols that an image holds; the linker sets it
// (deploy/Dockerfile).
var imagePlugin string

// pinned lists the SHA-256 of the plug-ins that may be loaded. They are verified, as data are, because equal bits need
// equal plug-ins, and because native code may do all that the process may.
func pinned(kind string) []string {
	if kind == "cuda" {
		return []string{"43d3efd6fd43d8a5d9aa67176e830d81e4ad5fc19fda4ad09cdcc4aebd9f3920"}
	}
	return []string{"0a0fe56ca17be9efc7b942e89e534e5e0ad4a0f1e369b66d27b62184509015b9", imagePlugin}
}

// findPlugin returns the path and the SHA-256 of the verified plug-in; with an error, the path of one that was found
// and is not used. It looks only where the owner of the program or of the machine puts plug-ins, never in the working
// directory.
func findPlugin(kind string) (path, sum string, err error) {
	name := "pjrt_c_api_" + kind + "_plugin.so"
	for _, dir := range pluginDirs() {
		path, err := filepath.EvalSymlinks(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			sum, err = verifyPlugin(path, pinned(kind))
		}
		if err != nil {
			return cmp.Or(path, dir), "", fmt.Errorf("XLA's %s plug-in is not loaded: %w", kind, err)
		}
		return path, sum, nil
	}
	return "", "", fmt.Errorf("XLA's %s plug-in, %s, is not in %s (`make setup` in the source of Evenweave "+
		"fetches it for Linux/amd64)", kind, name,
		strings.Join(pluginDirs(), ", "))
}

func pluginDirs() (dirs []string) {
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", ".evenweave", "xla"),
			filepath.Join(filepath.Dir(exe), "xla"))
	}
	// `go run` and `go test` put a program into a temporary folder: look where this file was compiled.
	if _, file, _, ok := runtime.Caller(0); ok && filepath.IsAbs(file) {
		dirs = append(dirs, filepath.Join(filepath.Dir(file), "..", "..", ".evenweave", "xla"))
	}
	if cache, err := os.UserCacheDir(); err == nil { // for a program that was copied to anywhere
		dirs = append(dirs, filepath.Join(cache, "evenweave", "xla"))
	}
	return append(dirs, "/usr/local/share/evenweave/xla")
}

// verifyPlugin returns the SHA-256 of the file at path. It checks that only the caller and root can change the file at
// path, then that it is one of the pinned. After that the file cannot change, so the library may open it by its name,
// which it needs: the name holds the plug-in's kind.
func verifyPlugin(path string, want []string) (sum string, err error) {
	if err := trusted(path); err != nil {
		return "", err
	}
	f, _, err := regular.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	stamp := stampFor(f)
	if known, err := os.ReadFile(stamp); err == nil && slices.Contains(want, string(known)) {
		return string(known), nil
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	sum = hex.EncodeToString(hash.Sum(nil))
	if !slices.Contains(want, sum) {
		return "", fmt.Errorf("SHA-256 of %s is %s, expected %s: remove it and run `make setup`, or set %s to its "+
			"directory to use it unverified",
			path, sum, strings.Join(slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "" }),
				" or "), pluginPaths)
	}
	if stamp != "" {
		_ = os.WriteFile(stamp, []byte(sum), 0o600) // without it the next start hashes again
	}
	return sum, nil
}

// trusted refuses a file that other users could change or replace.
func trusted(path string) error {
	for at := path; ; at = filepath.Dir(at) {
		var s unix.Stat_t
		if err := unix.Lstat(at, &s); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		others := s.Mode&unix.S_IWOTH != 0 || s.Mode&unix.S_IWGRP != 0 && s.Gid != 0 && int(s.Gid) != os.Getegid()
		sticky := at != path && s.Mode&unix.S_ISVTX != 0 // of /tmp: what is in it stays its owner's
		if s.Uid != 0 && int(s.Uid) != os.Geteuid() || others && !sticky {
			return fmt.Errorf("%s belongs to user %d and has mode %04o: expected to be writable by root and user %d "+
				"only", at, s.Uid, s.Mode&0o7777, os.Geteuid())
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// stampFor names the file that keeps the hash of f as long as f does not change: hashing 270 MB takes a second. The
// name depends on the time of change, which only root can set back. It is "" if the caller has no folder that is closed
// to other users.
func stampFor(f *os.File) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir := filepath.Join(cache, "evenweave", "verified")
	var s, d unix.Stat_t
	if os.MkdirAll(dir, 0o700) != nil || unix.Lstat(dir, &d) != nil || unix.Fstat(int(f.Fd()), &s) != nil {
		return ""
	}
	if int(d.Uid) != os.Geteuid() || d.Mode&0o7777 != 0o700 || d.Mode&unix.S_IFMT != unix.S_IFDIR ||
		trusted(dir) != nil {
		return ""
	}
	key := fmt.Sprint(s.Dev, s.Ino, s.Size, s.Mtim, s.Ctim)
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(dir, hex.EncodeToString(sum[:]))
}
