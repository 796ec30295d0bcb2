package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"evenweave"
	"evenweave/internal/state"
)

// A large checkpoint does not stay in the kernel's cache, where it would take the place of what training reads.
func TestALargeCheckpointIsNotCached(t *testing.T) {
	here := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(here, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skipf("a file system in memory: %v", err)
	}
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Uint8, Shape: []int{5*cached + 12345},
		Role: evenweave.Trained}})
	if err != nil {
		t.Fatal(err)
	}
	of := state.Seal(state.New(l, 16)).Stream()
	path, err := open(t, here, Options{}).Save(t.Context(), &Manifest{Tensors: Tensors(l)}, of.Bytes, of.Image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(file) }()
	size := os.Getpagesize()
	pages := make([]byte, (len(file)+size-1)/size)
	if _, _, failed := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&file[0])), uintptr(len(file)),
		uintptr(unsafe.Pointer(&pages[0]))); failed != 0 {
		t.Fatal(failed)
	}
	in := 0
	for _, p := range pages {
		in += int(p & 1)
	}
	if in > len(pages)/4 {
		t.Errorf("%d of %d pages are cached", in, len(pages))
	}
	if _, err := Verify(t.Context(), path); err != nil {
		t.Error(err)
	}
}

// What is written is in the file, however it is cut into writes, whether the file system takes writes past its cache or
// not, and whether it takes them until it refuses one.
func TestWritesPastTheCache(t *testing.T) {
	dirs := []string{t.TempDir()}
	if memory, err := os.MkdirTemp("/dev/shm", ""); err == nil { // no write goes past a cache there
		defer os.RemoveAll(memory)
		dirs = append(dirs, memory)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i, dir := range append(dirs, dirs[0]) {
		name := filepath.Join(dir, fmt.Sprint("f", i))
		of, err := OS{}.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f, want := of.(*file), []byte(nil)
		write := func(size int) {
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if n, err := f.Write(b); n != size || err != nil {
				t.Fatalf("%s: %d of %d bytes, %v", name, n, size, err)
			}
			want = append(want, b...)
		}
		for len(want) < cached+3*portion {
			write(r.IntN(2 * portion))
		}
		direct := f.part != nil
		if again := i == len(dirs); again && direct {
			f.part = append(make([]byte, 1, portion+1)[1:], f.part...) // no multiple of a page
			write(2 * portion)
			if f.part != nil {
				t.Logf("%s: a write from any address is taken", name)
			}
		}
		if _, err := f.WriteAt([]byte("head"), 3); err != nil {
			t.Fatal(err)
		}
		copy(want[3:], "head")
		write(100)
		if info, err := f.Stat(); err != nil || info.Size() != int64(len(want)) {
			t.Errorf("%s: %d bytes, %v, expected %d", name, info.Size(), err, len(want))
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s, past the cache: %v: %d bytes, %v, which are not the %d that were written", name, direct,
				len(got), err, len(want))
		}
	}
}
