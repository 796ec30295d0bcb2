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
	return &file{f: f}, nil
}

const (
	cached  = 8 << 20 // so much of a file goes through the kernel's cache, the rest of a larger one past it
	portion = 1 << 20 // bytes of a write past the cache
	page    = 4 << 10 // of which place, length and address in memory are multiples
)

// file keeps a large checkpoint out of the kernel's cache: it would take the place of what training reads, and each new
// page of it costs more than writing the page. After an error it writes no more.
type file struct {
	f      *os.File
	end    int64  // of what is written
	part   []byte // memory for what goes past the cache; nil: nothing does
	held   int    // bytes in it that are not written yet
	plain  bool   // nothing goes past the cache any more
	failed error
}

// Write may hold up to a portion until something else is done.
func (f *file) Write(b []byte) (n int, err error) {
	for n < len(b) && f.failed == nil {
		switch left := cached - f.end; {
		case f.part != nil:
			k := copy(f.part[f.held:], b[n:])
			if f.held, n = f.held+k, n+k; f.held == portion {
				f.writePart()
			}
		case f.plain:
			n += f.write(b[n:])
		case left > 0:
			n += f.write(b[n:min(int64(len(b)), int64(n)+left)])
		case setDirect(f.f, true):
			f.part = aligned(portion)
		default:
			f.plain = true
		}
	}
	return n, f.failed
}

func (f *file) write(b []byte) (n int) {
	n, f.failed = f.f.Write(b)
	f.end += int64(n)
	return n
}

// aligned is memory at an address that is a multiple of a page.
func aligned(size int) []byte {
	b := make([]byte, size+page)
	skip := -uintptr(unsafe.Pointer(&b[0])) % page
	return b[skip:][:size:size]
}

// writePart writes past the cache. File systems refuse that in many ways: after any error the rest goes through the
// cache. If the error had another cause, that fails too.
func (f *file) writePart() {
	n, err := f.f.Write(f.part[:f.held])
	if f.end += int64(n); err != nil {
		f.through(f.part[n:f.held])
		return
	}
	f.held = 0
}

// through writes the rest of a part, and then all that follows, through the cache.
func (f *file) through(rest []byte) {
	f.part, f.plain = nil, true
	if !setDirect(f.f, false) {
		f.failed = &os.PathError{Op: "fcntl", Path: f.f.Name(), Err: errors.New("cannot be written through the cache")}
		return
	}
	f.write(rest)
}

// settle writes what is held.
func (f *file) settle() error {
	if f.part != nil && f.failed == nil {
		f.through(f.part[:f.held])
	}
	return f.failed
}

func (f *file) WriteAt(b []byte, offset int64) (n int, err error) {
	if f.settle() == nil {
		n, f.failed = f.f.WriteAt(b, offset)
	}
	return n, f.failed
}

func (f *file) Stat() (os.FileInfo, error) {
	if err := f.settle(); err != nil {
		return nil, err
	}
	return f.f.Stat()
}

func (f *file) Sync() error {
	if f.settle() == nil {
		f.failed = f.f.Sync()
	}
	return f.failed
}

// Close also writes what is held, and says if that fails. It does not repeat an error that an earlier call returned.
func (f *file) Close() (err error) {
	if f.failed == nil {
		err = f.settle()
	}
	return errors.Join(err, f.f.Close())
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
