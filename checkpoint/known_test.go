package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// reads is the machine's file system, and counts the bytes that are read.
type reads struct {
	OS
	bytes *int64
}

func (r reads) Open(name string) (io.ReadSeekCloser, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return readCounter{f, r.bytes}, nil
}

type readCounter struct {
	*os.File
	bytes *int64
}

func (r readCounter) Read(b []byte) (int, error) {
	n, err := r.File.Read(b)
	*r.bytes += int64(n)
	return n, err
}

// What this process wrote or verified is not read again to find or keep it; what changed since, and what others wrote,
// is.
func TestKnownFilesAreNotHashedAgain(t *testing.T) {
	here, n := t.TempDir(), int64(0)
	s := open(t, here, Options{FS: reads{bytes: &n}})
	var paths []string
	for step := int64(1); step <= 4; step++ {
		paths = append(paths, mustSave(t, s, step, 1))
	}
	for range 3 {
		if _, err := s.Prune(t.Context(), 1, 3); err != nil {
			t.Fatal(err)
		}
		if e, err := s.Latest(t.Context()); err != nil || e.Step != 4 || e.Manifest.Job != "job" {
			t.Fatal(e, err)
		}
	}
	if n != 0 {
		t.Errorf("%d bytes were read of files that this process wrote", n)
	}
	other := open(t, here, Options{FS: reads{bytes: &n}})
	for range 2 {
		if checkLatest(t, other) != 4 {
			t.Error("a stranger's checkpoint is not found")
		}
	}
	info, err := os.Stat(paths[3])
	if err != nil {
		t.Fatal(err)
	}
	if whole := 4 * info.Size(); n == 0 || n > whole {
		t.Errorf("%d bytes were read to verify one stranger and read it twice, want at most %d", n, whole)
	}
	data, err := os.ReadFile(paths[3])
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := errors.Join(os.WriteFile(paths[3], data, 0o600),
		os.Chtimes(paths[3], time.Time{}, info.ModTime().Add(time.Second))); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Latest(t.Context()); err != nil || e.Step != 3 {
		t.Errorf("the newest, changed since it was written, passes: %+v, %v", e, err)
	}
	if err := os.Rename(paths[2], filepath.Join(here, fileName(9, 1))); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Latest(t.Context()); err != nil || e.Step != 2 {
		t.Errorf("a renamed file passes: %+v, %v", e, err)
	}
}

// atOpen calls do before it opens a file.
type atOpen struct {
	OS
	do func()
}

func (a atOpen) Open(name string) (io.ReadSeekCloser, error) {
	a.do()
	return a.OS.Open(name)
}

// A large checkpoint takes a while to be verified, and a due state must not wait for that.
func TestNoSaveWaitsForFilesThatPruneReads(t *testing.T) {
	here, opened := t.TempDir(), 0
	var s *Store
	s = open(t, here, Options{FS: atOpen{do: func() {
		if opened++; !s.mu.TryLock() {
			t.Error("Prune reads a file while no Save can begin")
			return
		}
		s.mu.Unlock()
	}}})
	for step := int64(1); step <= 3; step++ {
		mustSave(t, open(t, here, Options{}), step, 1) // of another process
	}
	if removed, err := s.Prune(t.Context(), 1, 2); err != nil || len(removed) != 1 || opened != 2 {
		t.Errorf("removed %v after %d files were opened, %v", removed, opened, err)
	}
}

// The link "latest" is replaced when it is old, when what it points at goes, and when it is asked for, not at each of
// many checkpoints in a row. It leads to a file at any moment.
func TestLatestLeadsToAFile(t *testing.T) {
	here := t.TempDir()
	s := open(t, here, Options{Relink: time.Hour})
	target := func() int64 {
		t.Helper()
		name, err := os.Readlink(filepath.Join(here, "latest"))
		if _, missing := os.Stat(filepath.Join(here, name)); err != nil || missing != nil {
			t.Fatal(err, missing)
		}
		step, _, _ := parseName(name)
		return step
	}
	for step := int64(1); step <= 4; step++ {
		mustSave(t, s, step, 1)
		if at := target(); at != 1 {
			t.Fatalf("after step %d: it points at step %d, expected the first one", step, at)
		}
	}
	if _, err := s.Prune(t.Context(), 1, 3); err != nil || target() != 4 {
		t.Errorf("it points at step %d, expected 4 once the first one is gone: %v", target(), err)
	}
	mustSave(t, s, 5, 1)
	if s.Relink(); target() != 5 {
		t.Errorf("it points at step %d, expected 5", target())
	}
	s.pointed = s.pointed.Add(-time.Hour)
	if mustSave(t, s, 6, 1); target() != 6 {
		t.Errorf("it points at step %d, expected 6: it was old", target())
	}
	if err := os.Symlink("nothing", filepath.Join(here, ".latest.tmp")); err != nil { // a crash has left it
		t.Fatal(err)
	}
	mustSave(t, s, 7, 1)
	if s.Relink(); target() != 7 {
		t.Errorf("it points at step %d, expected 7", target())
	}
	for step := int64(8); step <= 11; step++ {
		mustSave(t, s, step, 1)
	}
	other := open(t, here, Options{}) // of another process, after this one was killed
	if _, err := other.Prune(t.Context(), 1, 2); err != nil || target() != 11 {
		t.Errorf("it points at step %d, expected 11: %v", target(), err)
	}
}

func TestOnlyNamesOfCheckpointsAreTaken(t *testing.T) {
	if step, term, ok := parseName(fileName(1e12, 1e15)); !ok || step != 1e12 || term != 1e15 {
		t.Error(step, term, ok)
	}
	for _, name := range []string{"", "latest", ".step-00000001-term-0000000001.ckpt.tmp", "step-1-term-1.ckpt",
		"step-00000001-term-0000000001.ckpt.tmp", "step-00000001-term-0000000001.ckpt ",
		"step--0000001-term-0000000001.ckpt",
		"step-+0000001-term-0000000001.ckpt", "step-00000001.ckpt", "step-0x000001-term-0000000001.ckpt",
		"step-99999999999999999999-term-0000000001.ckpt", "step-00000001-term-0000000001-term-0000000001.ckpt"} {
		if _, _, ok := parseName(name); ok {
			t.Errorf("%q is taken for a checkpoint", name)
		}
	}
}
