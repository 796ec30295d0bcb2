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
		if _, err := s.Prune(t.Context(), 3); err != nil {
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
