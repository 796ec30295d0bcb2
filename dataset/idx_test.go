package dataset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"evenweave"
)

// idx is an IDX file of unsigned bytes; where payload is nil, as many as the axes say.
func idx(payload []byte, axes ...uint32) []byte {
	b := []byte{0, 0, 8, byte(len(axes))}
	n := 1
	for _, a := range axes {
		b = append(b, byte(a>>24), byte(a>>16), byte(a>>8), byte(a))
		n *= int(a)
	}
	if payload == nil {
		payload = make([]byte, n)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
	}
	return append(b, payload...)
}

func packed(b []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b)
	z.Close()
	return out.Bytes()
}

// small is a set of 5 and 3 images of 2 x 3 pixels.
func small() map[string][]byte {
	return map[string][]byte{
		"train-images-idx3-ubyte": idx(nil, 5, 2, 3), "train-labels-idx1-ubyte": idx([]byte{0, 3, 1, 3, 2}, 5),
		"t10k-images-idx3-ubyte": idx(nil, 3, 2, 3), "t10k-labels-idx1-ubyte": idx([]byte{1, 0, 3}, 3),
	}
}

func TestIDXSetsPlainAndPacked(t *testing.T) {
	var want []string
	for _, form := range []func(name string, b []byte) (string, []byte){
		func(name string, b []byte) (string, []byte) { return name, b },
		func(name string, b []byte) (string, []byte) { return name + ".gz", packed(b) },
		func(name string, b []byte) (string, []byte) {
			return "emnist-letters-" + strings.NewReplacer("-idx", ".idx", "t10k", "test").Replace(name), b
		},
	} {
		files := map[string][]byte{"README": nil}
		for name, b := range small() {
			name, b = form(name, b)
			files[name] = b
		}
		sets, classes, err := IDX(put(t, files))
		if err != nil || classes != 4 {
			t.Fatalf("%d classes, %v", classes, err)
		}
		got := append(samplesOf(t, sets.Train), samplesOf(t, sets.Test)...)
		if want == nil {
			want = got
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || len(got) != 8 ||
			got[1] != "1 uint8[2 3] 2a31383f464d int32[1] 03000000" {
			t.Errorf("got %q", got)
		}
		checkSamples(t, sets.Train)
		checkSamples(t, sets.Test)
		if sets.Train.Digest() == sets.Test.Digest() {
			t.Error("both parts have one digest")
		}
	}
}

func TestFashionMNISTIsAnIDXSet(t *testing.T) {
	dir := filepath.Join("..", ".evenweave", "data")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("needs the data: %v", err)
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	sets, classes, err := IDX(dir)
	if err != nil || classes != 10 || sets.Train.Len() != 60_000 || sets.Test.Len() != 10_000 {
		t.Errorf("%d classes, %v", classes, err)
	}
}

func TestEveryBadIDXSetIsNamed(t *testing.T) {
	images, labels := "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
	for want, change := range map[string]func(files map[string][]byte){
		"no file of train images":    func(f map[string][]byte) { delete(f, images) },
		"no file of train labels":    func(f map[string][]byte) { delete(f, labels) },
		"has only one of images":     func(f map[string][]byte) { delete(f, "t10k-labels-idx1-ubyte") },
		"expected one set":           func(f map[string][]byte) { f["kmnist-"+images] = f[images] },
		images + ": not an IDX file": func(f map[string][]byte) { f[images] = nil },
		"begins with 00000d03":       func(f map[string][]byte) { f[images] = []byte{0, 0, 13, 3, 0} },
		"begins with 00000800":       func(f map[string][]byte) { f[images] = []byte{0, 0, 8, 0} },
		"begins with 00000809":       func(f map[string][]byte) { f[images] = []byte{0, 0, 8, 9} },
		"its header is cut off":      func(f map[string][]byte) { f[images] = f[images][:13] },
		"has 45 bytes: expected 46":  func(f map[string][]byte) { f[images] = f[images][:45] },
		"has 47 bytes: expected 46":  func(f map[string][]byte) { f[images] = append(f[images], 0) },
		"axis 0 has a length of 0":   func(f map[string][]byte) { f[labels] = idx([]byte{1}, 0) },
		"axis 1 has a length of 2147483647": func(f map[string][]byte) {
			f[images] = idx([]byte{1}, 1<<31-1, 1<<31-1, 1<<31-1)
		},
		"labels have one":   func(f map[string][]byte) { f[labels] = idx(nil, 5, 1) },
		"has 5 samples":     func(f map[string][]byte) { f[labels] = idx(nil, 6) },
		"labels to 9":       func(f map[string][]byte) { f["t10k-labels-idx1-ubyte"] = idx([]byte{0, 9, 0}, 3) },
		"images of [3 2]":   func(f map[string][]byte) { f["t10k-images-idx3-ubyte"] = idx(nil, 3, 3, 2) },
		"damaged gzip file": func(f map[string][]byte) { f[images+".gz"] = f[images]; delete(f, images) },
		"gz: damaged gzip": func(f map[string][]byte) {
			f[images+".gz"] = packed(f[images])[:40]
			delete(f,
				images)
		},
		"gz: it has another length": func(f map[string][]byte) {
			f[images+".gz"] = packed(append(f[images], 1))
			delete(f, images)
		},
		"gz: it announces 4000000000000 bytes": func(f map[string][]byte) {
			f[images+".gz"] = packed(idx([]byte{1}, 2_000_000_000, 2000))
			delete(f, images)
		},
	} {
		files := small()
		change(files)
		_, _, err := IDX(put(t, files))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// Whatever stands in a file's place, the error comes at once and takes no memory.
func TestWhatIsNoIDXFile(t *testing.T) {
	for want, spoil := range map[string]func(path string) error{
		"is no regular file":    func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"is no regular file (m": func(path string) error { return os.Symlink("/dev/zero", path) },
		"no such file":          func(path string) error { return os.Symlink("nothing", path) },
		"damaged gzip":          func(path string) error { return os.WriteFile(path, make([]byte, 1<<20), 0o600) },
		"expected at most 1073741824": func(path string) error {
			return os.WriteFile(path, packed(idx(make([]byte, 1<<20), 1<<20, 1<<20)), 0o600)
		},
		"has another length: expected 1073741824": func(path string) error {
			return os.WriteFile(path, packed(idx(make([]byte, 1<<20), 1<<20, 1<<10)), 0o600)
		},
		"expected at most 1077936128": func(path string) error { return sparse(path, nil) },
		"it begins with 00000000":     func(path string) error { return sparse(strings.TrimSuffix(path, ".gz"), nil) },
		"has 107374182400 bytes: expected 1048588": func(path string) error {
			return sparse(strings.TrimSuffix(path, ".gz"), idx(nil, 1<<10, 1<<10))
		},
	} {
		files := small()
		delete(files, "train-images-idx3-ubyte")
		dir := put(t, files)
		if err := spoil(filepath.Join(dir, "train-images-idx3-ubyte.gz")); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _, err := IDX(dir)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "train-images") {
			t.Errorf("got %v, want an error with %q", err, want)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 32<<20 {
			t.Errorf("%s: %d bytes of memory", want, took)
		}
	}
}

func FuzzIDX(f *testing.F) {
	for name, b := range small() {
		f.Add(b, strings.Contains(name, "images"), false)
		f.Add(packed(b), strings.Contains(name, "images"), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, images, zip bool) {
		name := map[bool]string{true: "train-images-idx3-ubyte", false: "train-labels-idx1-ubyte"}[images]
		files := small()
		delete(files, name)
		name += map[bool]string{true: ".gz"}[zip]
		files[name] = b
		sets, _, err := IDX(put(t, files))
		if err != nil {
			return
		}
		batch := evenweave.Batch{Samples: []int32{0, int32(sets.Train.Len() - 1)}}
		if err := sets.Train.Load(&batch); err != nil {
			t.Errorf("%s was accepted: %v", name, err)
		}
	})
}

// sparse is a file of 100 GB, of zeros behind its first bytes, that takes no room on the disk.
func sparse(path string, first []byte) error {
	return errors.Join(os.WriteFile(path, first, 0o600), os.Truncate(path, 100<<30))
}
