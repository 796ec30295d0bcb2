package dataset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// counting is the system's disk, and counts the bytes that are read.
type counting struct {
	systemDisk
	bytes *atomic.Int64
}

func (c counting) open(path string) (opened, error) {
	o, err := c.systemDisk.open(path)
	return countingFile{o, c.bytes}, err
}

type countingFile struct {
	opened
	bytes *atomic.Int64
}

func (c countingFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := c.opened.ReadAt(p, offset)
	c.bytes.Add(int64(n))
	return n, err
}

// put writes files below a new directory, and gives the test a cache directory of its own.
func put(t *testing.T, files map[string][]byte) (root string) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	root = t.TempDir()
	for name, b := range files {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fiveBlocks is 16 MiB and 100 bytes, of which no two blocks are alike.
func fiveBlocks() []byte {
	b := make([]byte, 4*blockBytes+100)
	for i := 0; i < len(b); i += 50 {
		b[i] = byte(i/blockBytes + i%251 + 1)
	}
	return b
}

// change writes bytes into a file and gives it the time that it had, unless another is given.
func change(t *testing.T, path string, offset int64, b []byte, at time.Time) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if at.IsZero() {
		at = info.ModTime()
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(b, offset)
	if err := errors.Join(err, f.Close(), os.Chtimes(path, at, at)); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, root string, names ...string) (*Files, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	f, err := openFiles(counting{bytes: n}, root, names)
	if err != nil {
		t.Fatal(err)
	}
	return f, n
}

func manifests(t *testing.T, dir string) []string {
	t.Helper()
	var found []string
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "evenweave") {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// The first start reads everything once, the next ones nothing, and a read only its block.
func TestAStartReadsNothing(t *testing.T) {
	content := fiveBlocks()
	root := put(t, map[string][]byte{"a/big": content, "small": []byte("12345"), "empty": nil})
	names := []string{"a/big", "small", "empty"}
	first, n := open(t, root, names...)
	if want := int64(len(content) + 5); n.Load() != want {
		t.Errorf("the first start read %d bytes of %d", n.Load(), want)
	}
	again, n := open(t, root, names...)
	if n.Load() != 0 || again.Digest() != first.Digest() {
		t.Errorf("the second start read %d bytes; digests %s, %s", n.Load(), again.Digest(), first.Digest())
	}
	p := make([]byte, 100)
	for range 2 {
		if err := again.ReadAt(0, p, 2*blockBytes-50); err != nil || !bytes.Equal(p, content[2*blockBytes-50:][:100]) {
			t.Errorf("read %x, %v", p, err)
		}
	}
	if want := int64(2*blockBytes + 100); n.Load() != want {
		t.Errorf("reading over two blocks' border twice read %d bytes, want %d", n.Load(), want)
	}
	if p := make([]byte, 5); again.ReadAt(1, p, 0) != nil || string(p) != "12345" {
		t.Errorf("read %q", p)
	}
	if err := again.ReadAt(2, nil, 0); err != nil {
		t.Error(err)
	}
	saved := manifests(t, os.Getenv("XDG_CACHE_HOME"))
	if info, err := os.Stat(saved[0]); len(saved) != 1 || err != nil || info.Mode() != 0o600 {
		t.Errorf("saved %v: %v, %v", saved, info.Mode(), err)
	}
}

func TestAFlippedBitIsNamed(t *testing.T) {
	content := fiveBlocks()
	root := put(t, map[string][]byte{"big": content})
	open(t, root, "big")
	change(t, filepath.Join(root, "big"), 3*blockBytes+1000, []byte{content[3*blockBytes+1000] ^ 4}, time.Time{})
	f, _ := open(t, root, "big")
	p := make([]byte, 10)
	for block := range int64(5) {
		err := f.ReadAt(0, p, block*blockBytes+20)
		if (err != nil) != (block == 3) {
			t.Errorf("block %d: %v", block, err)
		}
		if err == nil {
			continue
		}
		for _, want := range []string{filepath.Join(root, "big"), "block 3 (bytes 12582912 to 16777215) is damaged",
			fmt.Sprintf("expected SHA-256 %x", f.sums[3]), "found ", f.manifest} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
		}
	}
	if err := f.ReadAt(0, make([]byte, len(content)), 0); err == nil {
		t.Error("a read over all blocks gave the damaged one")
	}
}

// Another size or time makes the file's sums void, and no other's; the digest goes by names and bytes alone.
func TestChangedFilesAreHashedAgain(t *testing.T) {
	root := put(t, map[string][]byte{"a": []byte("aaaa"), "b": []byte("bbb")})
	first, _ := open(t, root, "a", "b")
	change(t, filepath.Join(root, "a"), 0, []byte("a"), time.Unix(1e9, 5))
	touched, n := open(t, root, "a", "b")
	if n.Load() != 4 || touched.Digest() != first.Digest() {
		t.Errorf("a new time: read %d bytes; digests %s, %s", n.Load(), first.Digest(), touched.Digest())
	}
	for _, now := range []struct {
		sec, nsec int64
		read      int64
	}{{1e9, 0, 0}, {1e9, 5, 0}, {1e9 + 1, 0, 4}, {1e9 + 1, 7, 4}} { // the layers of an image hold whole seconds
		change(t, filepath.Join(root, "a"), 0, []byte("a"), time.Unix(now.sec, now.nsec))
		if _, n := open(t, root, "a", "b"); n.Load() != now.read {
			t.Errorf("a time of %d.%09d s: read %d bytes, expected %d", now.sec, now.nsec, n.Load(), now.read)
		}
	}
	change(t, filepath.Join(root, "a"), 0, []byte("a"), time.Unix(1e9, 5))
	change(t, filepath.Join(root, "a"), 4, []byte("!"), time.Unix(1e9, 5))
	longer, n := open(t, root, "a", "b")
	if n.Load() != 5 || longer.Digest() == first.Digest() {
		t.Errorf("a new size: read %d bytes; digest %s", n.Load(), longer.Digest())
	}
	if swapped, _ := open(t, root, "b", "a"); swapped.Digest() == longer.Digest() {
		t.Error("another order has the same digest")
	}
	elsewhere := put(t, map[string][]byte{"a": []byte("aaaa"), "b": []byte("bbb")})
	if same, _ := open(t, elsewhere, "a", "b"); same.Digest() != first.Digest() {
		t.Error("the same files have another digest in another directory")
	}
}

// What happens to a file while it is in use is found by the next read.
func TestFilesThatChangeInUse(t *testing.T) {
	root := put(t, map[string][]byte{"a": []byte("0123456789")})
	f, n := open(t, root, "a")
	path := filepath.Join(root, "a")
	p := make([]byte, 4)
	read := func() error { return f.ReadAt(0, p, 2) }
	if err := read(); err != nil {
		t.Fatal(err)
	}
	change(t, path, 0, []byte("01234"), time.Unix(1e9, 0))
	before := n.Load()
	if err := read(); err != nil || string(p) != "2345" || n.Load() != before+10 {
		t.Errorf("written with the same bytes: %q, %v, %d bytes", p, err, n.Load()-before)
	}
	change(t, path, 9, []byte("!"), time.Unix(1e9, 1))
	if err := read(); err == nil || !strings.Contains(err.Error(), "block 0 (bytes 0 to 9) is damaged") {
		t.Errorf("written with other bytes: %q, %v", p, err)
	}
	if err := os.Truncate(path, 7); err != nil {
		t.Fatal(err)
	}
	if err := read(); err == nil || !strings.Contains(err.Error(), path+" has 7 bytes, and had 10") {
		t.Errorf("cut off: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("removed: %v", err)
	}
}

func TestImpossibleReadsAreRefused(t *testing.T) {
	f, _ := open(t, put(t, map[string][]byte{"a": []byte("0123456789")}), "a")
	for _, c := range [][2]int64{{1, -1}, {1, 10}, {11, 0}, {2, 9}, {1, 1 << 62}, {1, -1 << 63}} {
		if err := f.ReadAt(0, make([]byte, c[0]), c[1]); err == nil || !strings.Contains(err.Error(), "it has 10") {
			t.Errorf("%d bytes at %d: %v", c[0], c[1], err)
		}
	}
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	root := put(t, map[string][]byte{"a": nil, "dir/b": nil})
	if err := errors.Join(syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600),
		os.Symlink("/dev/zero", filepath.Join(root, "device")), os.Symlink("nothing",
			filepath.Join(root, "link"))); err != nil {
		t.Fatal(err)
	}
	for want, names := range map[string][]string{
		"fifo is no regular file": {"fifo"}, "device is no regular file": {"device"}, "dir is no regular file": {"dir"},
		"no such file": {"link"}, `"../a"`: {"../a"}, `"/etc/passwd"`: {"/etc/passwd"},
		`"a": expected names`: {"a", "a"},
		"at least one":        {},
	} {
		if _, err := OpenFiles(root, names...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want an error with %q", names, err, want)
		}
	}
}

// A manifest that cannot be used, or kept, costs reading the files, and nothing else.
func TestManifestsThatCannotBeUsed(t *testing.T) {
	files := map[string][]byte{"a": []byte("0123456789")}
	root := put(t, files)
	first, _ := open(t, root, "a")
	path, good := first.manifest, first.encode()
	for name, spoil := range map[string]func() error{
		"cut": func() error { return os.WriteFile(path, good[:len(good)-1], 0o600) },
		"edited": func() error {
			return os.WriteFile(path, bytes.Replace(good, []byte("10 "), []byte("11 "), 1),
				0o600)
		},
		"huge": func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 100<<30)) },
		"fifo": func() error { return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)) },
		"link": func() error { return errors.Join(os.Remove(path), os.Symlink("/dev/zero", path)) },
		"gone": func() error { return os.RemoveAll(filepath.Dir(path)) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if f, n := open(t, root, "a"); n.Load() != 10 || f.Digest() != first.Digest() || f.manifest != path {
			t.Errorf("%s: read %d bytes, saved %s", name, n.Load(), f.manifest)
		}
		if _, n := open(t, root, "a"); n.Load() != 0 {
			t.Errorf("%s: it was not replaced", name)
		}
	}
	t.Setenv("XDG_CACHE_HOME", "/dev/null/no")
	for _, mode := range []fs.FileMode{0o600, 0o644} {
		if err := errors.Join(os.Chmod(filepath.Join(root, "a"), mode), os.RemoveAll(path)); err != nil {
			t.Fatal(err)
		}
		f, _ := open(t, root, "a")
		path = f.manifest
		if info, err := os.Stat(path); filepath.Dir(path) != root || err != nil || info.Mode() != mode {
			t.Errorf("without a cache directory it is %s: %v, %v; the file has mode %v", path, info.Mode(), err, mode)
		}
	}
	if _, n := open(t, root, "a"); n.Load() != 0 {
		t.Error("the one beside the data was not found")
	}
}

func FuzzManifest(f *testing.F) {
	files := func() *Files {
		return &Files{files: []file{{"a b", blockBytes + 1, 0, 7, 0}, {"c\n", 0, 0, 8, 2}, {"d", 3, 0, 9, 2}},
			sums: make([][32]byte, 3)}
	}
	good := files()
	good.sums[2][5] = 1
	text := good.encode()
	f.Add(text[:len(text)-72])
	f.Add(bytes.Replace(text[:len(text)-72], []byte("4194305"), []byte("9223372036854775807"), 1))
	f.Fuzz(func(t *testing.T, body []byte) {
		// The last line is made here: a fuzzer would never find it.
		text := append(bytes.Clone(body), fmt.Sprintf("%s%x\n", manifestTail, sha256.Sum256(body))...)
		got, known := files(), make([]bool, 3)
		if !got.parse(text, known) && (known[0] || known[1] || known[2]) {
			t.Error("files are known from no manifest")
		}
		again := files()
		if known[0] && known[1] && known[2] && (!again.parse(got.encode(), make([]bool, 3)) ||
			again.hash() != got.hash()) {
			t.Errorf("%q is read as %q", text, got.encode())
		}
	})
}

// Data that nothing names are not looked for in the directory that the process happens to be in.
func TestUnnamedDataAreNamed(t *testing.T) {
	_, _, err := CSV("", wanted())
	_, _, other := IDX("")
	_, _, images := Images("", Pictures{Height: 8, Width: 8})
	_, text := Text("", Windows{Length: 8})
	for what, err := range map[string]error{"CSV": err, "IDX": other, "Images": images, "Text": text} {
		if !errors.Is(err, errUnnamed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
