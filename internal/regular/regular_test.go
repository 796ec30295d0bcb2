package regular

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// Write and Append follow no link and do not wait for a FIFO's reader.
func TestWritingFollowsNoLink(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	for _, name := range []string{"link", "dangling", "fifo", "new", "old"} {
		for how, open := range map[string]func(string) (*os.File, error){"Write": Write, "Append": Append} {
			path := filepath.Join(dir, name)
			_ = os.Remove(path)
			err := os.WriteFile(precious, []byte("precious"), 0o600)
			switch name {
			case "link":
				err = errors.Join(err, os.Symlink(precious, path))
			case "dangling":
				err = errors.Join(err, os.Symlink("nothing", path))
			case "fifo":
				err = errors.Join(err, syscall.Mkfifo(path, 0o600))
			case "old":
				err = errors.Join(err, os.WriteFile(path, []byte("old"), 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			f, err := open(path)
			if want := name == "new" || name == "old"; (err == nil) != want {
				t.Errorf("%s of %s: %v", how, name, err)
			}
			if err == nil {
				_, err = f.WriteString("x")
				info, _ := os.Lstat(path)
				b, _ := os.ReadFile(path)
				want := map[string]string{"Writeold": "xld", "Appendold": "oldx"}[how+name]
				if want == "" {
					want = "x"
				}
				if err := errors.Join(err, f.Close()); err != nil || info.Mode() != 0o600 || string(b) != want {
					t.Errorf("%s of %s: mode %s, %q, %v", how, name, info.Mode(), b, err)
				}
			}
			if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
				t.Fatalf("%s of %s: the file behind the link holds %q, %v", how, name, b, err)
			}
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made behind a dangling link: %v", err)
	}
}

// TestReplaceIsAllOrNothing: what was there before stays until the new contents are whole, and nothing else is left.
func TestReplaceIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path, precious := filepath.Join(dir, "file"), filepath.Join(dir, "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.Symlink(precious, path)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"first", "", "second"} {
		if err := Replace(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		info, _ := os.Lstat(path)
		if b, err := os.ReadFile(path); err != nil || string(b) != want || info.Mode() != 0o600 {
			t.Errorf("mode %s, %q, %v; want %q", info.Mode(), b, err, want)
		}
	}
	first, err := ReplaceOpen(path, func(io.Writer) error { return nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("second")); err != nil {
		t.Fatal(err)
	}
	if _, err := first.WriteString("late"); errors.Join(err, first.Close()) != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "second" {
		t.Errorf("what was appended to the replaced file reached its successor: %q, %v", b, err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "dir", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	failure := errors.New("no more")
	if err := ReplaceBy(path, func(w io.Writer) error {
		_, _ = w.Write([]byte("a part"))
		return failure
	}); !errors.Is(err, failure) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := Replace(filepath.Join(dir, "dir"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("the file behind the link holds %q, %v", b, err)
	}
	if err := ReplaceAll(File{path, []byte("third")}, File{filepath.Join(dir, "none", "x"), nil}); err == nil {
		t.Error("a file was made in no directory")
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "second" {
		t.Errorf("one of two files was replaced, which belong together: %q, %v", b, err)
	}
	if err := ReplaceAll(File{path, []byte("third")}, File{precious, []byte("fourth")}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "third", precious: "fourth"} {
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s holds %q, %v; want %q", name, b, err, want)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestTwoReplaceAFile at once: their temporary files have different names, also where both have one process id, as the
// first processes of two containers do that share a volume.
func TestTwoReplaceAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, first := range []error{nil, errors.New("no more")} {
		want := "first"
		if first != nil {
			want = "second"
		}
		if err := ReplaceBy(path, func(w io.Writer) error {
			_, err := io.WriteString(w, "fir")
			if err = errors.Join(err, Replace(path, []byte("second"))); err != nil {
				t.Error(err)
			}
			_, err = io.WriteString(w, "st")
			return errors.Join(first, err)
		}); !errors.Is(err, first) {
			t.Error(err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			t.Errorf("%q, %v; want %q", b, err, want)
		}
	}
}

// TestWhatACrashLeftIsRemoved by the next replacement of the same file, and nothing else is: not what another process
// writes at the time.
func TestWhatACrashLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	stay := []string{"file.2.tmp", "file.tmp", "file.x.tmp", "file.3.txt", "file.5.tmp", "other.1.tmp", "1.tmp"}
	for _, name := range append(stay, "file.1.tmp", "file.4123412341.tmp") {
		err := os.WriteFile(filepath.Join(dir, name), nil, 0o600)
		if name == "file.5.tmp" {
			err = errors.Join(os.Remove(filepath.Join(dir, name)), os.Mkdir(filepath.Join(dir, name), 0o700))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	other, err := os.Open(filepath.Join(dir, "file.2.tmp"))
	if err = errors.Join(err, Lock(other, 0)); err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := Replace(filepath.Join(dir, "file"), nil); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := append(stay, "file"); err != nil || !slices.Equal(names, slices.Sorted(slices.Values(want))) {
		t.Errorf("%v, %v; want %v", names, err, want)
	}
}
