package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"evenweave/internal/regular"
)

// A manifest is text: a first line, then for each file a line "SIZE TIME NAME" (the time in nanoseconds since 1970, the
// name quoted as Go does) and a line with the SHA-256 of each of its blocks, and last the SHA-256 of all that before.
const (
	manifestHead = "evenweave manifest 1: SHA-256 of blocks of 4194304 bytes\n"
	manifestTail = "sha256 "
)

// fill finds the sums of all blocks: in a manifest, or by reading what has changed since, or all.
func (f *Files) fill() error {
	cache, beside := f.places()
	known := make([]bool, len(f.files))
	for _, place := range []string{beside, cache} {
		if text, err := regular.Read(place, int64(f.manifestLimit())); err == nil && f.parse(text, known) {
			f.manifest = place
		}
	}
	if !slices.Contains(known, false) {
		return nil
	}
	if err := f.read(known); err != nil {
		return err
	}
	text := f.encode()
	for _, place := range []string{cache, beside} {
		mode := fs.FileMode(0o600)
		if place == beside { // other users' processes read the data too, as in containers
			mode |= f.files[0].mode & 0o444
		}
		if err := save(place, text, mode); err == nil {
			f.manifest = place
			return nil
		}
	}
	f.manifest = "the manifest (it could not be saved)" // the next start reads the files again: slow, but right
	return nil
}

// places are where the manifest may be: in the user's cache directory, and beside the data.
func (f *Files) places() (cache, beside string) {
	h := sha256.New()
	for i := range f.files {
		fmt.Fprintf(h, "%q\n", f.files[i].name)
	}
	name := fmt.Sprintf(".evenweave-%x.manifest", h.Sum(nil)[:8])
	beside = filepath.Join(f.root, name)
	root, err := filepath.Abs(f.root)
	if cache, err2 := os.UserCacheDir(); err == nil && err2 == nil {
		sum := sha256.Sum256([]byte(root))
		return filepath.Join(cache, "evenweave", hex.EncodeToString(sum[:8]), name), beside
	}
	return beside, beside
}

// manifestLimit is far more bytes than the manifest of these files has.
func (f *Files) manifestLimit() int {
	n := 1024 + 65*len(f.sums)
	for i := range f.files {
		n += 64 + 4*len(f.files[i].name)
	}
	return n
}

func (f *Files) encode() []byte {
	var b bytes.Buffer
	b.WriteString(manifestHead)
	for i := range f.files {
		fmt.Fprintf(&b, "%d %d %q\n", f.files[i].size, f.files[i].modified, f.files[i].name)
		for _, sum := range f.sumsOf(i) {
			fmt.Fprintf(&b, "%x\n", sum)
		}
	}
	fmt.Fprintf(&b, "%s%x\n", manifestTail, sha256.Sum256(b.Bytes()))
	return b.Bytes()
}

func (f *Files) sumsOf(i int) [][sha256.Size]byte {
	return f.sums[f.files[i].first:][:f.files[i].blocks()]
}

// hash is the digest: all that a manifest says, except the times.
func (f *Files) hash() string {
	h := sha256.New()
	fmt.Fprint(h, manifestHead)
	for i := range f.files {
		fmt.Fprintf(h, "%d %q\n", f.files[i].size, filepath.ToSlash(f.files[i].name))
		for _, sum := range f.sumsOf(i) {
			h.Write(sum[:])
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// parse takes from a manifest the sums of files whose size and time are as it says, and marks them known. It returns
// false, and marks nothing, if the text is no whole manifest of these files.
func (f *Files) parse(text []byte, known []bool) bool {
	at := len(text) - len(manifestTail) - 2*sha256.Size - 1
	if at < 0 || string(text[at:]) != fmt.Sprintf("%s%x\n", manifestTail, sha256.Sum256(text[:at])) {
		return false
	}
	body, ok := strings.CutPrefix(string(text[:at]), manifestHead)
	line := func() (s string) {
		s, body, _ = strings.Cut(body, "\n")
		return s
	}
	fits := make([]bool, len(known))
	for i := 0; ok && i < len(f.files); i++ {
		var size, modified int64
		size, modified, ok = fileLine(line(), f.files[i].name)
		fits[i] = size == f.files[i].size && sameTime(modified, f.files[i].modified)
		for b := int64(0); ok && b*blockBytes < size; b++ {
			sum, err := hex.DecodeString(line())
			if ok = err == nil && len(sum) == sha256.Size; ok && fits[i] && !known[i] {
				f.sums[f.files[i].first+int(b)] = [sha256.Size]byte(sum)
			}
		}
	}
	if ok = ok && body == ""; ok {
		for i := range known {
			known[i] = known[i] || fits[i]
		}
	}
	return ok
}

// sameTime is true also of a file whose time has lost its fraction of a second, as in a layer of an image.
func sameTime(then, now int64) bool {
	const second = 1_000_000_000
	return then == now || now%second == 0 && then/second == now/second
}

// fileLine reads "SIZE TIME NAME" of a file whose name is known.
func fileLine(line, name string) (size, modified int64, ok bool) {
	part := strings.SplitN(line, " ", 3)
	if len(part) != 3 || part[2] != strconv.Quote(name) {
		return 0, 0, false
	}
	size, err1 := strconv.ParseInt(part[0], 10, 64)
	modified, err2 := strconv.ParseInt(part[1], 10, 64)
	if err := errors.Join(err1, err2); err != nil || size < 0 {
		return 0, 0, false
	}
	return size, modified, true
}

// read hashes the files that are not known, several blocks at once.
func (f *Files) read(known []bool) error {
	var todo [][2]int // file, block
	for i := range f.files {
		for b := range f.files[i].blocks() {
			if !known[i] {
				todo = append(todo, [2]int{i, b})
			}
		}
	}
	var next atomic.Int64
	errs := make([]error, min(len(todo), runtime.GOMAXPROCS(0)))
	var lanes sync.WaitGroup
	for lane := range errs {
		lanes.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(todo)); k = next.Add(1) - 1 {
				if errs[lane] = f.hashBlock(todo[k][0], todo[k][1]); errs[lane] != nil {
					next.Store(int64(len(todo)))
				}
			}
		})
	}
	lanes.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i := range f.files {
		info, err := f.stat(f.files[i].name)
		if err != nil {
			return err
		}
		if info.Size() != f.files[i].size || info.ModTime().UnixNano() != f.files[i].modified {
			return fmt.Errorf("%s changed while it was read: start again when it is complete", f.path(i))
		}
	}
	return nil
}

func (f *Files) hashBlock(i, block int) error {
	r, err := f.disk.open(f.path(i))
	if err != nil {
		return err
	}
	defer r.Close()
	buffer := f.buffers.Get().(*[blockBytes]byte)
	defer f.buffers.Put(buffer)
	whole, err := f.block(i, block, r, buffer)
	f.sums[f.files[i].first+block] = sha256.Sum256(whole)
	return err
}

// save writes the manifest as a whole or not at all.
func save(path string, text []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := regular.ReplaceOpen(path, func(w io.Writer) error {
		_, err := w.Write(text)
		return err
	}, nil)
	if file != nil {
		err = errors.Join(err, file.Chmod(mode), file.Close())
	}
	return err
}
