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
func Replace(path string, b []byte) error {
	return ReplaceBy(path, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

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
	temporary := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	f, err := Create(temporary)
	if err != nil {
		return nil, err
	}
	buffered := bufio.NewWriter(f)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	if err = errors.Join(err, f.Sync()); err == nil && unless != nil {
		err = unless()
	}
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(temporary))
	}
	return f, SyncDir(filepath.Dir(path))
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
