package checkpoint

import (
	"os"
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
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Uint8, Shape: []int{3 * window},
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
	page := os.Getpagesize()
	pages := make([]byte, (len(file)+page-1)/page)
	if _, _, failed := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&file[0])), uintptr(len(file)),
		uintptr(unsafe.Pointer(&pages[0]))); failed != 0 {
		t.Fatal(failed)
	}
	cached := 0
	for _, p := range pages {
		cached += int(p & 1)
	}
	if cached > len(pages)/4 {
		t.Errorf("%d of %d pages are cached", cached, len(pages))
	}
	if _, err := Verify(t.Context(), path); err != nil {
		t.Error(err)
	}
}
