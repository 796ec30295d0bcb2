package checkpoint

import (
	"io"
	"os"

	"evenweave/internal/regular"
)

// FS is the file system as the store uses it; a test puts faults into it. Errors are those of package os.
type FS interface {
	Mkdir(dir string) error
	Create(name string) (File, error)            // fails if name exists
	Open(name string) (io.ReadSeekCloser, error) // fails if name is no regular file
	Rename(from, to string) error                // atomic, replaces to
	Remove(name string) error
	Symlink(target, name string) error
	List(dir string) (names []string, err error)
	SyncDir(dir string) error // makes what was created, renamed and removed in dir durable
}

// File is a file being written, at its end or over what is written already.
type File interface {
	io.WriteCloser
	io.WriterAt
	Sync() error // makes what was written durable
}

// OS is the machine's file system.
type OS struct{}

func (OS) Mkdir(dir string) error { return os.Mkdir(dir, 0o700) }

func (OS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &file{File: f}, nil
}

// window is how much of a file is written until the kernel's cache need not hold what was before.
const window = 16 << 20

// file keeps a large checkpoint out of the kernel's cache: it would take the place of what training reads, and each new
// page of it costs more than writing the page.
type file struct {
	*os.File
	end, begun int64 // of what is written, and of its last window
}

func (f *file) Write(b []byte) (int, error) {
	n, err := f.File.Write(b)
	if f.end += int64(n); err == nil && f.end-f.begun >= window {
		err = uncache(f.File, f.begun, f.end)
		f.begun = f.end
	}
	return n, err
}

func (f *file) Sync() error {
	err := f.File.Sync()
	if f.begun > 0 {
		uncacheAll(f.File)
	}
	return err
}

func (OS) Open(name string) (io.ReadSeekCloser, error) {
	f, _, err := regular.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (OS) Rename(from, to string) error { return os.Rename(from, to) }

func (OS) Remove(name string) error { return os.Remove(name) }

func (OS) Symlink(target, name string) error { return os.Symlink(target, name) }

func (OS) List(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

func (OS) SyncDir(dir string) error { return regular.SyncDir(dir) }
