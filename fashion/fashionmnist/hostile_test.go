package fashionmnist

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// Whatever is in a file's place, the error comes at once and takes no memory.
func TestWhatIsNoDataFile(t *testing.T) {
	f, _ := tiny()
	for name, put := range map[string]func(path string) error{
		"no regular file":         func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"no regular file (":       func(path string) error { return os.Symlink("/dev/zero", path) },
		"no regular file (mode d": func(path string) error { return os.Mkdir(path, 0o700) },
		"tiny": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 100<<30))
		},
	} {
		for _, file := range []string{"tiny", "tiny.gz"} {
			dir := t.TempDir()
			if err := put(filepath.Join(dir, file)); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := f.read(dir)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), name) ||
				!strings.Contains(err.Error(), filepath.Join(dir, file)) {
				t.Errorf("%s: %v; want an error with %q", file, err, name)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 10<<20 {
				t.Errorf("%s: %s took %d bytes of memory", file, name, took)
			}
		}
	}
}

func TestMisplacedFilesAreNamed(t *testing.T) {
	f := file{"x-idx1-ubyte", []int{4}, 9, ""}
	_, good := tiny()
	for says, files := range map[string]map[string][]byte{
		"but x.idx1-ubyte is: rename it":    {"x.idx1-ubyte": good},
		"but x.idx1-ubyte.gz is: rename it": {"x.idx1-ubyte.gz": good},
		"x-idx1-ubyte.gz beside it":         {"x-idx1-ubyte": good[:3], "x-idx1-ubyte.gz": pack(t, good)},
	} {
		dir := t.TempDir()
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := f.read(dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want an error with %q", err, says)
		}
	}
}

func TestTorchvisionsDirectory(t *testing.T) {
	from := filepath.Join("..", "..", ".evenweave", "data")
	if _, err := os.Stat(from); err != nil {
		t.Skipf("needs the data: %v", err)
	}
	from, err := filepath.Abs(from)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "FashionMNIST"), 0o700),
		os.Symlink(from, filepath.Join(dir, "FashionMNIST", "raw"))); err != nil {
		t.Fatal(err)
	}
	if train, _, err := Load(dir); err != nil || train.Len() != TrainSize {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	tinyFile, good := tiny()
	f.Add(good, false)
	f.Add(good[:9], false)
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), true)
	f.Fuzz(func(t *testing.T, content []byte, packed bool) {
		dir, name := t.TempDir(), tinyFile.name
		if packed {
			name += ".gz"
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := tinyFile.read(dir)
		if (err == nil) != bytes.Equal(got, good[8:]) || !packed && (err == nil) != bytes.Equal(content, good) {
			t.Errorf("%x: %x, %v", content, got, err)
		}
	})
}
