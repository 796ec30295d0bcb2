package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestOnlyRegularFilesOfABoundedSize(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := errors.Join(
		os.WriteFile(path("whole"), []byte("12345"), 0o600),
		os.WriteFile(path("sparse"), nil, 0o600),
		os.Truncate(path("sparse"), 100<<30),
		syscall.Mkfifo(path("fifo"), 0o600),
		os.Symlink("fifo", path("link")),
		os.Symlink("/dev/zero", path("device")),
	); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path("whole"), 5); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v", b, err)
	}
	for name, want := range map[string]string{
		"whole": "at most 4", "sparse": "107374182400 bytes", "fifo": "no regular file", "link": "no regular file",
		"device": "no regular file", ".": "no regular file",
	} {
		if b, err := Read(path(name), 4); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d bytes, %v; want an error with %q", name, len(b), err, want)
		}
	}
	if _, err := Read(path("missing"), 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
