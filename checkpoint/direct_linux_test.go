package checkpoint

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
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
	probe := created(t, t.TempDir())
	defer probe.Close()
	if !setDirect(probe.f, true) || probe.write(aligned(page)) != page {
		t.Skip("this file system takes no writes past its cache")
	}
	whole := state.New(l, 16)
	of, m := state.Seal(whole).Stream(), describe(whole)
	path, err := open(t, here, Options{}).Save(t.Context(), &m, of.Bytes, of.Image)
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

// What is written is in the file, however it is cut into writes, whether the file system takes writes past its cache,
// takes none, or refuses one.
func TestWritesPastTheCache(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, how := range []string{"direct", "plain", "refused"} {
		f, want := created(t, t.TempDir()), []byte(nil)
		f.plain = how == "plain"
		write := func(size int) {
			b := make([]byte, size)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			if n, err := f.Write(b); n != size || err != nil {
				t.Fatalf("%s: %d of %d bytes, %v", how, n, size, err)
			}
			want = append(want, b...)
		}
		for len(want) < cached+3*portion {
			write(r.IntN(2 * portion))
		}
		if how == "refused" && f.part != nil {
			odd := make([]byte, portion+1)[1:] // its address is no multiple of a page
			copy(odd, f.part[:f.held])
			f.part = odd
			write(2 * portion)
			if !f.plain {
				t.Log("a write from any address is taken here")
			}
		}
		if _, err := f.WriteAt([]byte("head"), 3); err != nil {
			t.Fatal(err)
		}
		copy(want[3:], "head")
		write(100)
		if info, err := f.Stat(); err != nil || info.Size() != int64(len(want)) {
			t.Errorf("%s: %v, %v, expected %d bytes", how, info, err, len(want))
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.f.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, which are not the %d that were written", how, len(got), err, len(want))
		}
	}
}

func created(t *testing.T, dir string) *file {
	f, err := OS{}.Create(filepath.Join(dir, "f"))
	if err != nil {
		t.Fatal(err)
	}
	return f.(*file)
}

// What cannot be written is an error of whatever comes next, and of all after it: a file that lacks its end is not
// taken for whole.
func TestWhatIsHeldIsNotLost(t *testing.T) {
	if os.Getenv("EVENWEAVE_TEST_LIMIT") == "" { // in a process of its own: its files are limited
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "EVENWEAVE_TEST_LIMIT=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	signal.Ignore(unix.SIGXFSZ)
	const most = cached + portion/2
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		t.Fatal(err)
	}
	for next, do := range map[string]func(f *file) error{
		"Sync":    func(f *file) error { return f.Sync() },
		"Close":   func(f *file) error { return f.Close() },
		"WriteAt": func(f *file) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"Stat":    func(f *file) error { _, err := f.Stat(); return err },
		"Write":   func(f *file) error { _, err := f.Write(make([]byte, portion)); return err },
	} {
		f := created(t, t.TempDir())
		_, early := f.Write(make([]byte, cached+portion-1)) // where nothing is held
		first := errors.Join(early, do(f))
		if after := f.Sync(); first == nil || after == nil {
			t.Errorf("%s: %v, and then %v; expected errors", next, first, after)
		}
		_ = f.Close()
	}
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Uint8, Role: evenweave.Trained,
		Shape: []int{cached + portion - 4096}}})
	if err != nil {
		t.Fatal(err)
	}
	of := state.Seal(state.New(l, 16)).Stream()
	dir := t.TempDir()
	_, err = open(t, dir, Options{}).Save(t.Context(), &Manifest{Tensors: Tensors(l)}, of.Bytes, of.Image)
	if err == nil {
		t.Error("a checkpoint without its end is saved")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}
