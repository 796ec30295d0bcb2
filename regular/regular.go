// Package regular opens files that others may have put in place: only regular ones, of a known size at most. A device, a
// FIFO or a file of any length then gives an error at once, instead of a wait or an allocation without bound.
package regular

import (
	"errors"
	"fmt"
	"io"
	"os"
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

// Read returns the contents of the regular file that path leads to, of at most limit bytes. A file that grows meanwhile
// is read as far as it went before.
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
