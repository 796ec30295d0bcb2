package dataset

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"evenweave/internal/regular"
)

// blockBytes is the unit in which files are hashed.
const blockBytes = 4 << 20

// Files are regular files whose bytes are checked when they are read: a manifest holds the SHA-256 of each block of 4
// MiB, and the first read of a block in a process compares it. Damage is an error that names the file and the block.
// The manifest is made, by reading the files once, when there is none for their present sizes and times. It is kept in
// the user's cache directory or, where there is none, beside the data, to be read by all that read those; a manifest
// that is copied there is used too.
// Files are read, not mapped: one that is cut off meanwhile gives an error, where a mapping would end the process.
//
// All methods may be called by several goroutines at once. No file stays open.
type Files struct {
	disk     disk
	root     string
	manifest string // where the sums were found or saved
	digest   string
	files    []file
	sums     [][sha256.Size]byte // of all blocks, file by file

	buffers sync.Pool // of *[blockBytes]byte
	mu      sync.Mutex
	checked []uint64 // a bit for each block
}

// file is one of Files. A change of size or time makes its sums void.
type file struct {
	name     string // below the root
	size     int64
	mode     fs.FileMode
	modified int64 // in nanoseconds; guarded by mu once the files are open
	first    int   // the index of its first block
}

func (f *file) blocks() int { return int((f.size + blockBytes - 1) / blockBytes) }

// errUnnamed is for data whose path is empty, as it is where a task's user named none and the task has no default.
var errUnnamed = errors.New("nothing says where the data are: name their file or directory, by --data")

// OpenFiles opens files below a directory, by their names from there. Their order is part of the digest.
func OpenFiles(root string, names ...string) (*Files, error) {
	return openFiles(systemDisk{}, root, names)
}

func openFiles(d disk, root string, names []string) (*Files, error) {
	f := &Files{disk: d, root: root, files: make([]file, len(names))}
	f.buffers.New = func() any { return new([blockBytes]byte) }
	if len(names) == 0 {
		return nil, fmt.Errorf("%s: no files: expected at least one", root)
	}
	seen := make(map[string]bool, len(names))
	blocks := 0
	for i, name := range names {
		if !filepath.IsLocal(name) || seen[name] {
			return nil, fmt.Errorf("%s: file %q: expected names below that directory, each once", root, name)
		}
		seen[name] = true
		info, err := f.stat(name)
		if err != nil {
			return nil, err
		}
		f.files[i] = file{name, info.Size(), info.Mode(), info.ModTime().UnixNano(), blocks}
		if f.files[i].size > math.MaxInt64/2 || blocks > math.MaxInt32 {
			return nil, fmt.Errorf("%s has %d bytes: that is too much", f.path(i), f.files[i].size)
		}
		blocks += f.files[i].blocks()
	}
	f.sums, f.checked = make([][sha256.Size]byte, blocks), make([]uint64, (blocks+63)/64)
	if err := f.fill(); err != nil {
		return nil, err
	}
	f.digest = f.hash()
	return f, nil
}

// Len is the number of files.
func (f *Files) Len() int { return len(f.files) }

// Name of file i, as it was given to OpenFiles.
func (f *Files) Name(i int) string { return f.files[i].name }

// Size of file i in bytes.
func (f *Files) Size(i int) int64 { return f.files[i].size }

// Digest is the hash of the manifest: of the files' names, order and bytes.
func (f *Files) Digest() string { return f.digest }

func (f *Files) paths() []string {
	all := make([]string, len(f.files))
	for i := range all {
		all[i] = f.path(i)
	}
	return all
}

func (f *Files) path(i int) string { return filepath.Join(f.root, f.files[i].name) }

// ReadAt fills p with the bytes of file i from offset on.
func (f *Files) ReadAt(i int, p []byte, offset int64) error {
	size := f.files[i].size
	if offset < 0 || offset > size || int64(len(p)) > size-offset {
		return fmt.Errorf("%s: cannot read %d bytes at %d: it has %d", f.path(i), len(p), offset, size)
	}
	r, err := f.disk.open(f.path(i))
	if err != nil {
		return err
	}
	defer r.Close()
	if err := f.noteChange(i, r); err != nil {
		return err
	}
	for len(p) > 0 {
		block := int(offset / blockBytes)
		within := offset % blockBytes
		n := min(int64(len(p)), blockBytes-within)
		if err := f.readBlock(i, block, r, p[:n], within); err != nil {
			return err
		}
		p, offset = p[n:], offset+n
	}
	return nil
}

// noteChange makes the blocks of a file be checked again if it was written to.
func (f *Files) noteChange(i int, r opened) error {
	info, err := r.Stat()
	if err != nil {
		return err
	}
	if info.Size() != f.files[i].size {
		return fmt.Errorf("%s has %d bytes, and had %d when it was opened: data must not change while a job goes on",
			f.path(i), info.Size(), f.files[i].size)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := info.ModTime().UnixNano(); t != f.files[i].modified {
		f.files[i].modified = t
		for b := range f.files[i].blocks() {
			f.checked[(f.files[i].first+b)/64] &^= 1 << ((f.files[i].first + b) % 64)
		}
	}
	return nil
}

// readBlock fills p from a place within one block, which is checked as a whole if this process has not done so before.
func (f *Files) readBlock(i, block int, r io.ReaderAt, p []byte, within int64) error {
	b := f.files[i].first + block
	f.mu.Lock()
	checked := f.checked[b/64]>>(b%64)&1 == 1
	f.mu.Unlock()
	if checked {
		return readFull(r, f.path(i), p, int64(block)*blockBytes+within)
	}
	buffer := f.buffers.Get().(*[blockBytes]byte)
	defer f.buffers.Put(buffer)
	whole, err := f.block(i, block, r, buffer)
	if err != nil {
		return err
	}
	if found := sha256.Sum256(whole); found != f.sums[b] {
		return fmt.Errorf("%s: block %d (bytes %d to %d) is damaged: expected SHA-256 %x, found %x: restore the "+
			"file, or remove %s if it was changed on purpose", f.path(i), block, int64(block)*blockBytes,
			int64(block)*blockBytes+int64(len(whole))-1, f.sums[b], found, f.manifest)
	}
	copy(p, whole[within:])
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checked[b/64] |= 1 << (b % 64)
	return nil
}

// block reads a whole block, the last one as far as the file goes.
func (f *Files) block(i, block int, r io.ReaderAt, buffer *[blockBytes]byte) ([]byte, error) {
	offset := int64(block) * blockBytes
	whole := buffer[:min(blockBytes, f.files[i].size-offset)]
	return whole, readFull(r, f.path(i), whole, offset)
}

func readFull(r io.ReaderAt, path string, p []byte, offset int64) error {
	if n, err := r.ReadAt(p, offset); n < len(p) {
		return fmt.Errorf("%s: read %d of %d bytes at %d: %w", path, n, len(p), offset, err)
	}
	return nil
}

// disk is the file system as Files uses it.
type disk interface {
	stat(path string) (fs.FileInfo, error)
	open(path string) (opened, error)
}

type opened interface {
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
}

type systemDisk struct{}

func (systemDisk) stat(path string) (fs.FileInfo, error) { return os.Stat(path) }

func (systemDisk) open(path string) (opened, error) {
	f, _, err := regular.Open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Files) stat(name string) (fs.FileInfo, error) {
	path := filepath.Join(f.root, name)
	info, err := f.disk.stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file (mode %s): expected one", path, info.Mode())
	}
	return info, err
}

// maxFiles bounds the memory that listing a directory takes.
const maxFiles = 1 << 24

// list returns the names of the files below a directory that keep wants, sorted. What begins with a dot is left out,
// as are links to directories.
func list(root string, keep func(name string) bool) ([]string, error) {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		hidden := name != "." && strings.HasPrefix(d.Name(), ".")
		switch {
		case err != nil:
			return err
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir() || hidden || !keep(filepath.ToSlash(name)):
			return nil
		case len(names) == maxFiles:
			return fmt.Errorf("%s holds over %d files", root, maxFiles)
		}
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

// reader reads file i from its beginning. Give it a large buffer: each of its reads opens the file.
func (f *Files) reader(i int) io.Reader { return &sequence{f, i, 0} }

type sequence struct {
	files *Files
	i     int
	at    int64
}

func (s *sequence) Read(p []byte) (int, error) {
	n := min(int64(len(p)), s.files.Size(s.i)-s.at)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	if err := s.files.ReadAt(s.i, p[:n], s.at); err != nil {
		return 0, err
	}
	s.at += n
	return int(n), nil
}
