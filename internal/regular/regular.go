// Package regular opens files that others may have made: only regular files, of a bounded size. A device, a FIFO or a
// huge file gives an error at once, instead of a wait or an allocation without bound.
package regular

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// Create makes a new file (mode 0600) and replaces what has that name.
func Create(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
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
		err = os.Rename(temporary(path), path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(temporary(path)))
	}
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
	for _, file := range files {
		defer os.Remove(temporary(file.Path)) // what is in its place has this name no more
		f, err := stage(file.Path, func(w io.Writer) error {
			_, err := w.Write(file.Content)
			return err
		})
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := os.Rename(temporary(file.Path), file.Path); err != nil {
			return err
		}
	}
	return SyncDir(filepath.Dir(files[0].Path))
}

func temporary(path string) string { return fmt.Sprintf("%s.%d.tmp", path, os.Getpid()) }

// stage makes the temporary file of a path, durable and open. The caller removes it, after an error too.
func stage(path string, write func(io.Writer) error) (*os.File, error) {
	f, err := Create(temporary(path))
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewWriter(f)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	return f, errors.Join(err, f.Sync())
}

// Lock locks a file for its holder until that is closed. It tries for some time: another may hold it for a moment.
func Lock(f *os.File, within time.Duration) error {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil || time.Since(begun) >= within {
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
