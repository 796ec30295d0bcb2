package checkpoint

import (
	"errors"
	"io"
	"os"
	"unsafe"

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

const (
	cached  = 8 << 20 // so much of a file goes through the kernel's cache, the rest of a larger one past it
	portion = 1 << 20 // bytes of a write past the cache
	page    = 4 << 10 // of which place, length and address in memory are multiples
)

// file keeps a large checkpoint out of the kernel's cache: it would take the place of what training reads, and each new
// page of it costs more than writing the page.
type file struct {
	*os.File
	end   int64  // of what is written
	part  []byte // not written yet; nil: nothing goes past the cache
	plain bool   // nothing more does
}

// Write may keep up to a portion, for the next Write, WriteAt, Stat or Sync.
func (f *file) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		switch left := cached - f.end; {
		case f.part != nil:
			k := min(portion-len(f.part), len(b)-n)
			f.part, n = append(f.part, b[n:n+k]...), n+k
			if len(f.part) == portion {
				err = f.writePart()
			}
		case f.plain || left > 0:
			rest := b[n:]
			if !f.plain {
				rest = rest[:min(int64(len(rest)), left)]
			}
			var k int
			k, err = f.File.Write(rest)
			f.end, n = f.end+int64(k), n+k
		case setDirect(f.File, true):
			f.part = aligned(portion)[:0]
		default:
			f.plain = true
		}
	}
	return n, err
}

// aligned is memory at an address that is a multiple of a page.
func aligned(size int) []byte {
	b := make([]byte, size+page)
	skip := -uintptr(unsafe.Pointer(&b[0])) % page
	return b[skip : int(skip)+size : int(skip)+size]
}

// writePart writes past the cache; through it, and all that follows, if the file system takes no such write.
func (f *file) writePart() error {
	n, err := f.File.Write(f.part)
	f.end += int64(n)
	if refusesDirect(err) {
		f.part = f.part[n:]
		return f.settle()
	}
	f.part = f.part[:0]
	return err
}

// settle writes what is kept, and all that follows, through the cache.
func (f *file) settle() error {
	if f.part == nil {
		return nil
	}
	rest := f.part
	f.part, f.plain = nil, true
	if !setDirect(f.File, false) {
		return &os.PathError{Op: "fcntl", Path: f.Name(), Err: errors.New("it cannot be written through the cache")}
	}
	n, err := f.File.Write(rest)
	f.end += int64(n)
	return err
}

func (f *file) WriteAt(b []byte, offset int64) (int, error) {
	if err := f.settle(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(b, offset)
}

func (f *file) Stat() (os.FileInfo, error) {
	if err := f.settle(); err != nil {
		return nil, err
	}
	return f.File.Stat()
}

func (f *file) Sync() error {
	if err := f.settle(); err != nil {
		return err
	}
	return f.File.Sync()
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
