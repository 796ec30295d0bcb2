package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Store is a directory of checkpoints. It is safe for concurrent use, and other processes may read the directory, or
// save under other terms, at the same time.
type Store struct {
	dir     string
	fs      FS
	damaged func(*DamagedError)
	reading func()

	relink time.Duration

	mu      sync.Mutex // one at a time saves, or removes
	swept   int64      // term up to which the directory was made and swept; -1: none
	latest  string     // the file that the link points at; "": this store has not made it
	pointed time.Time  // when it was made

	knowing sync.Mutex // never held while files are read or written
	known   map[string]sound
}

// Options are the optional parts of a Store.
type Options struct {
	FS      FS                  // nil: OS
	Damaged func(*DamagedError) // called for each file that Latest or Prune skips; may be nil
	Reading func()              // called for each portion of a file that is read to verify it; may be nil
	// Relink is how old the link "latest" may become before Save replaces it. That takes as much as a tenth of a small
	// checkpoint, because a file system makes and removes an inode for it. Whatever its age, it never points at a file
	// that Prune has removed. The caller ends with Store.Relink. 0: each Save replaces it.
	Relink time.Duration
}

// Entry is a checkpoint file.
type Entry struct {
	Path       string
	Step, Term int64    // as the name says
	Manifest   Manifest // filled in by Latest, which has verified it; zero in a List
}

// Open returns the store of a directory, which need not exist: the first Save makes it.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, fs: o.FS, damaged: o.Damaged, reading: o.Reading, relink: o.Relink,
		known: map[string]sound{}, swept: -1}
	if s.fs == nil {
		s.fs = OS{}
	}
	if s.damaged == nil {
		s.damaged = func(*DamagedError) {}
	}
	if _, err := s.List(); err != nil {
		return nil, err
	}
	return s, nil
}

// Save writes a checkpoint and returns its path once it is durable. Its payload is a state: head, then what rest
// writes, the image. The file's hash covers manifest and head, which holds the SHA-256 of each block of the image. rest
// may change the manifest as far as its encoding keeps its length: the fingerprint of what it writes, for one. On an
// error nothing is left, except that after a failed sync of the directory a whole file may be seen, or not. What is
// written and synced is not read back: it is taken for valid while its size and time stay.
func (s *Store) Save(ctx context.Context, m *Manifest, head []byte, rest func(io.Writer) error) (path string,
	err error) {
	if m.Step < 0 || m.Term < 0 {
		return "", fmt.Errorf("checkpoint: step %d, term %d: neither can be negative", m.Step, m.Term)
	}
	m.Format = Format
	s.mu.Lock()
	defer s.mu.Unlock()
	path = filepath.Join(s.dir, fileName(m.Step, m.Term))
	if err := s.save(ctx, path, m, head, rest); err != nil {
		return "", fmt.Errorf("checkpoint: saving step %d: %w%s; earlier checkpoints are untouched",
			m.Step, err, s.hint(err))
	}
	if s.relink == 0 || s.latest == "" || time.Since(s.pointed) >= s.relink {
		s.pointAtNewest(s.List())
	}
	return path, nil
}

// Relink makes the link "latest" point at the newest file.
func (s *Store) Relink() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pointAtNewest(s.List())
}

// pointAtNewest is Relink for what List has returned; s.mu is held.
func (s *Store) pointAtNewest(entries []Entry, err error) {
	if err == nil && len(entries) > 0 {
		_ = s.Point("latest", entries[0]) // no program reads it
		s.latest, s.pointed = entries[0].Path, time.Now()
	}
}

func (s *Store) save(ctx context.Context, path string, m *Manifest, head []byte, rest func(io.Writer) error) error {
	if m.Term > s.swept {
		if err := s.makeDir(s.dir); err != nil {
			return err
		}
		s.sweep(m.Term)
		s.swept = m.Term
	}
	temp := tempName(path)
	err := s.writeFile(temp, func(f File) error {
		err := encode(ctx, f, m, head, rest)
		if err == nil {
			s.remember(path, f, *m) // a rename keeps size and time
		}
		return err
	})
	if err == nil {
		err = s.fs.Rename(temp, path)
	}
	if err != nil {
		s.forget(path)
		s.swept = -1          // once more: the directory may be gone
		_ = s.fs.Remove(temp) // may not have been created; what stays is swept by a later Save
		return err
	}
	err = s.syncDir(s.dir)
	if err == nil {
		s.settled(path)
	}
	return err
}

// writeFile creates a file and makes its content, but not yet its name, durable.
func (s *Store) writeFile(name string, write func(File) error) error {
	f, err := s.fs.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeDir makes dir and its parents durably. The first one that is there may have been made a moment ago, by a process
// that then died; but not where this one may not read or write, or a volume is mounted.
func (s *Store) makeDir(dir string) error {
	parent := filepath.Dir(dir)
	_, err := s.fs.List(dir)
	if err == nil {
		err = s.fs.SyncDir(parent)
		for _, none := range []error{fs.ErrPermission, syscall.EROFS, syscall.EINVAL, errors.ErrUnsupported} {
			if errors.Is(err, none) {
				return nil
			}
		}
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.makeDir(parent); err != nil {
		return err
	}
	if err := s.fs.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return s.syncDir(parent)
}

// syncDir makes the names in dir durable, or says what that takes: without it no checkpoint is.
func (s *Store) syncDir(dir string) error {
	err := s.fs.SyncDir(dir)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("%w: the file system of %s cannot sync a directory, and a loss of power could take back "+
			"what is saved there; choose a directory on one that can, such as ext4, XFS or NFS", err, dir)
	}
	return err
}

// sweep removes files that leaders of terms up to this one have not finished, because they crashed. A leader of a
// higher term may be writing now.
func (s *Store) sweep(term int64) {
	names, _ := s.fs.List(s.dir) // after a failure the next Save sweeps
	for _, name := range names {
		if _, t, ok := parseName(finalName(name)); ok && t <= term && finalName(name) != name {
			_ = s.fs.Remove(filepath.Join(s.dir, name))
		}
	}
}

// Point makes the symbolic link name, in the directory, point at a checkpoint. It is a hint for people.
func (s *Store) Point(name string, e Entry) error {
	link, target := filepath.Join(s.dir, name), filepath.Base(e.Path)
	err := s.fs.Symlink(target, tempName(link))
	if errors.Is(err, fs.ErrExist) { // left by a crash
		_ = s.fs.Remove(tempName(link))
		err = s.fs.Symlink(target, tempName(link))
	}
	if err == nil {
		err = s.fs.Rename(tempName(link), link)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: the link %s: %w", name, err)
	}
	return nil
}

func (s *Store) hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ": free space in " + s.dir
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return ": make " + s.dir + " writable"
	}
	return ""
}

// List returns all files named as checkpoints, newest first, without reading them.
func (s *Store) List() ([]Entry, error) {
	names, err := s.fs.List(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoint: listing: %w", err)
	}
	var entries []Entry
	for _, name := range names {
		if step, term, ok := parseName(name); ok {
			entries = append(entries, Entry{Path: filepath.Join(s.dir, name), Step: step, Term: term})
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.Step, a.Step), cmp.Compare(b.Term, a.Term))
	})
	return entries, nil
}

// Latest returns the valid checkpoint of the highest step, then term. It returns ErrNone if there are no files, and a
// *DamagedError if there are but none can be used: that must never look like a job that has not begun. A file that this
// process cannot read for another reason than damage, such as its mode, is an error, too.
func (s *Store) Latest(ctx context.Context) (*Entry, error) {
	for range 10 {
		entries, err := s.List()
		if err != nil {
			return nil, err
		}
		valid, bad, vanished, err := s.newest(ctx, entries, 1)
		switch {
		case err != nil:
			return nil, err
		case len(valid) > 0:
			return &valid[0], nil
		case vanished: // another process pruned it meanwhile, so there is a newer one
			continue
		case len(bad) > 0:
			return nil, fmt.Errorf("checkpoint: none of %d checkpoints in %s can be used; the newest: %w",
				len(bad), s.dir, bad[0])
		}
		return nil, ErrNone
	}
	return nil, fmt.Errorf("checkpoint: the files in %s vanish while they are read: does another program remove them?",
		s.dir)
}

// Durable is Latest for a leader, whose members drop what they hold of that step: it returns what a loss of power does
// not take back, even if the process that saved it died before it had synced the directory.
func (s *Store) Durable(ctx context.Context) (*Entry, error) {
	newest, err := s.Latest(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.settle(*newest); err != nil {
		return nil, fmt.Errorf("checkpoint: making the name of %s durable: %w", newest.Path, err)
	}
	return newest, nil
}

// newest verifies files from the newest on until it has n valid ones. It reports the damaged ones among those it tried,
// and whether one vanished meanwhile.
func (s *Store) newest(ctx context.Context, entries []Entry, n int) (valid []Entry, bad []*DamagedError,
	vanished bool, err error) {
	for _, e := range entries {
		if len(valid) == n {
			break
		}
		e.Manifest, err = s.verify(ctx, e)
		var damaged *DamagedError
		switch {
		case err == nil:
			valid = append(valid, e)
		case ctx.Err() != nil:
			return nil, nil, false, fmt.Errorf("checkpoint: looking for the latest: %w", context.Cause(ctx))
		case errors.Is(err, fs.ErrNotExist):
			vanished = true
		case errors.As(err, &damaged):
			bad = append(bad, damaged)
			s.damaged(damaged)
		default:
			return nil, nil, false, err
		}
	}
	return valid, bad, vanished, nil
}

func (s *Store) verify(ctx context.Context, e Entry) (Manifest, error) {
	m, payload, err := s.Read(ctx, e.Path)
	if err != nil {
		return m, err
	}
	if err = errors.Join(payload.Close(), m.named(e.Path)); err != nil {
		return m, unusable(e.Path, err)
	}
	return m, nil
}

// Read verifies a checkpoint file wholly, unless this store has written or verified it and it is as it was, then
// returns its manifest and its payload, for the caller to read and close. Reading the payload fails if what Save took
// as its head is not what was hashed; the rest is for the caller to compare with the hashes in it, as state.Read does.
// The error is a *DamagedError, which wraps fs.ErrNotExist if there is no such file, or says why this process cannot
// read one that may be whole.
func (s *Store) Read(ctx context.Context, path string) (Manifest, io.ReadCloser, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return Manifest{}, nil, unusable(path, err)
	}
	m, p, err := s.examine(ctx, path, f)
	if err != nil {
		return Manifest{}, nil, unusable(path, errors.Join(err, f.Close()))
	}
	return m, struct {
		io.Reader
		io.Closer
	}{p, f}, nil
}

// ReadRange is Read for a part of the payload, from an offset on; length 0: all that follows. What a part holds is not
// hashed again: the caller compares it with the hashes of the state's blocks.
func (s *Store) ReadRange(ctx context.Context, path string, offset, length int64) (io.ReadCloser, error) {
	f, err := s.fs.Open(path)
	if err != nil {
		return nil, unusable(path, err)
	}
	part, err := s.part(ctx, path, f, offset, length)
	if err != nil {
		return nil, unusable(path, errors.Join(err, f.Close()))
	}
	return struct {
		io.Reader
		io.Closer
	}{part, f}, nil
}

func (s *Store) part(ctx context.Context, path string, f io.ReadSeeker, offset, length int64) (io.Reader, error) {
	_, all, err := s.examine(ctx, path, f)
	if err != nil || offset == 0 && length == 0 {
		return all, err
	}
	e, err := unwrap(f)
	if err != nil {
		return nil, err
	}
	if offset = min(max(offset, 0), e.payload); length <= 0 || length > e.payload-offset {
		length = e.payload - offset
	}
	_, err = f.Seek(int64(len(e.head))+offset, io.SeekStart)
	return io.LimitReader(f, length), err
}

func (s *Store) examine(ctx context.Context, path string, f io.ReadSeeker) (Manifest, io.Reader, error) {
	if known, ok := s.recall(path, f); ok {
		return known.manifest, &unread{f: f}, nil
	}
	m, p, err := verify(ctx, watched{f, s.reading})
	if err == nil {
		s.remember(path, f, m)
	}
	return m, p, err
}

// Read reads a checkpoint file from anywhere, as Store.Read does.
func Read(ctx context.Context, path string) (Manifest, io.ReadCloser, error) {
	return (&Store{fs: OS{}}).Read(ctx, path)
}
