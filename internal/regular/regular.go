// Package regular opens files that others may have made: only regular files, of a bounded size. A device, a FIFO or a
// huge file gives an error at once, instead of a wait or an allocation without bound.
package regular

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Open opens the regular file that path leads to. Opening never waits for another process.
func Open(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (mode %s): expected one", path, info.Mode())
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Read returns the contents of the regular file that path leads to, of at most limit bytes. Of a file that grows
// meanwhile, it returns the bytes up to its first size.
func Read(path string, limit int64) ([]byte, error) {
	f, size, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s has %d bytes: expected at most %d", path, size, limit)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("%s: read %d bytes: %w", path, size, err)
	}
	return b, nil
}

// Write opens the regular file of that name for reading and writing. It creates the file (mode 0600) if there is none,
// follows no link, and keeps the content.
func Write(path string) (*os.File, error) { return write(path, os.O_RDWR) }

// Append is like Write, but appends to the content.
func Append(path string) (*os.File, error) { return write(path, os.O_WRONLY|os.O_APPEND) }

func write(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if errors.Is(err, syscall.ELOOP) {
		return nil, fmt.Errorf("%s is a link: expected a regular file; remove the link", path)
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (mode %s): expected one", path, info.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Replace writes a file for the caller alone, durably: a reader of the path finds what was there before or all of b,
// never a part, also after a crash.
func Replace(path string, b []byte) error { return ReplaceAll(File{path, b}) }

// ReplaceBy is Replace for what write writes; if that fails, what was there before stays.
func ReplaceBy(path string, write func(io.Writer) error) error {
	f, err := ReplaceOpen(path, write, nil)
	if f != nil {
		err = errors.Join(err, f.Close())
	}
	return err
}

// ReplaceOpen is ReplaceBy, and returns the new file, open at its end: what is appended to it never reaches a file that
// replaces this one. The file is nil if it is not in place; with a file, an error says that a crash may undo the
// rename. The new file is durable before unless, which may be nil, is asked for an error that keeps it from its place.
func ReplaceOpen(path string, write func(io.Writer) error, unless func() error) (*os.File, error) {
	f, err := stage(path, write)
	if f == nil {
		return nil, err
	}
	if err == nil && unless != nil {
		err = unless()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_UN)
	return f, SyncDir(filepath.Dir(path))
}

// File is what a path is to hold.
type File struct {
	Path    string
	Content []byte
}

// ReplaceAll is Replace for files of one directory that belong together: all are durable before the first takes its
// place, and then they take their places at once, in order. Only a reader in that instant finds some of each.
func ReplaceAll(files ...File) error {
	var staged []*os.File
	for _, file := range files {
		f, err := stage(file.Path, func(w io.Writer) error {
			_, err := w.Write(file.Content)
			return err
		})
		if f != nil {
			defer f.Close()
			defer os.Remove(f.Name()) // what is in its place has this name no more
			staged = append(staged, f)
		}
		if err != nil {
			return err
		}
	}
	for i, file := range files {
		if err := os.Rename(staged[i].Name(), file.Path); err != nil {
			return err
		}
	}
	return SyncDir(filepath.Dir(files[0].Path))
}

// stage makes a temporary file for a path, durable, open and locked. The caller removes it, after an error too.
func stage(path string, write func(io.Writer) error) (*os.File, error) {
	sweep(path)
	f, err := create(path)
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewWriter(f)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	return f, errors.Join(err, f.Sync())
}

// create makes a temporary file. A random number is in its name: another container's process on the same volume may
// have the same process id. Its lock keeps sweep from it, which may come before that; then it makes another one. Where
// the file system has no locks, sweep removes nothing.
func create(path string) (*os.File, error) {
	for range 100 {
		f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if _, lost := os.Lstat(f.Name()); lost == nil && !errors.Is(err, syscall.EWOULDBLOCK) {
			return f, nil
		}
		_, _ = f.Close(), os.Remove(f.Name())
	}
	return nil, fmt.Errorf("%s: its temporary files are removed as soon as they are made", path)
}

// sweep removes what crashes have left of earlier replacements of path: no process has it locked.
func sweep(path string) {
	entries, _ := os.ReadDir(filepath.Dir(path))
	for _, e := range entries {
		name, ours := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		number, unfinished := strings.CutSuffix(name, ".tmp")
		if _, err := strconv.ParseUint(number, 10, 64); err != nil || !ours || !unfinished {
			continue
		}
		left := filepath.Join(filepath.Dir(path), e.Name())
		if f, _, err := Open(left); err == nil {
			if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
				_ = os.Remove(left)
			}
			_ = f.Close()
		}
	}
}

// ErrLocked says that another holds a lock.
const ErrLocked = syscall.EWOULDBLOCK

// Lock locks a file or directory for its holder alone until that is closed. It tries for some time: another may hold it
// for a moment.
func Lock(f *os.File, within time.Duration) error { return lock(f, syscall.LOCK_EX, within) }

// Share is Lock for a holder that shares it with others that do.
func Share(f *os.File, within time.Duration) error { return lock(f, syscall.LOCK_SH, within) }

func lock(f *os.File, how int, within time.Duration) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err != ErrLocked || time.Since(begun) >= within {
			return err
		}
	}
}

// Rename gives a file another name, durably.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

// SyncDir makes what was created, renamed and removed in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
