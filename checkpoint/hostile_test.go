package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"evenweave/internal/state"
)

// sealed is a file whose lengths and hash are right, whatever it holds.
func sealed(manifest, payload string) []byte {
	file := binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(manifest)))
	file = append(file, manifest+payload...)
	file = binary.LittleEndian.AppendUint64(file, uint64(len(payload)))
	file = binary.LittleEndian.AppendUint64(file, uint64(len(payload))) // so much the hash covers
	sum := sha256.Sum256(file)
	return append(file, sum[:]...)
}

func hostileManifests() map[string]string {
	return map[string]string{
		"negative shape":        `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[-1,-1]}]}`,
		"zero in a shape":       `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[0,5]}]}`,
		"shape overflows to 0":  `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[4294967296,4294967296]}]}`,
		"shape overflows":       `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[3037000500,3037000500]}]}`,
		"negative offset":       `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[1],"offset":-1}]}`,
		"unknown type":          `{"format":3,"tensors":[{"name":"w","type":"complex","role":"trained","shape":[1]}]}`,
		"unknown role":          `{"format":3,"tensors":[{"name":"w","type":"float32","role":"king","shape":[1]}]}`,
		"hole":                  `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[1],"offset":8}]}`,
		"nothing is trained":    `{"format":3,"tensors":[{"name":"w","type":"float32","role":"kept","shape":[1]}]}`,
		"two of a name":         `{"format":3,"tensors":[{"name":"w","type":"uint8","role":"trained","shape":[8]},{"name":"w","type":"uint8","role":"trained","shape":[8],"offset":8}]}`,
		"a tool's own, unknown": `{"format":3,"tensors":[{"name":"w","type":"uint8","role":"trained","shape":[8]},{"name":"evenweave/x","type":"uint8","role":"kept","shape":[8],"offset":8}]}`,
		"too many exponents":    exponents("int32", 3),
		"exponents of a type":   exponents("uint32", 2),
		"sum overflows":         `{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[2],"offset":9223372036854775807}]}`,
		"negative step":         `{"format":3,"step":-1}`,
		"negative term":         `{"format":3,"term":-1}`,
		"no tensors":            `{"format":3}`,
		"another format":        `{"format":2}`,
		"a long manifest":       `{"format":3,"tensors":[` + strings.Repeat(`{},`, maxManifest/3) + `{}]}`,
	}
}

// exponents is the manifest of two blocks with so many exponents of a type.
func exponents(dtype string, n int) string {
	return fmt.Sprintf(`{"format":3,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[300]},`+
		`{"name":"evenweave/exponents","type":%q,"role":"kept","shape":[%d],"offset":1200}]}`, dtype, n)
}

func TestHostileManifestsAreRefused(t *testing.T) {
	read := func(manifest string) (m Manifest, err error) {
		e, err := unwrap(bytes.NewReader(sealed(manifest, "payload")))
		if err == nil {
			m, err = e.manifest()
		}
		return m, err
	}
	if _, err := read(exponents("int32", 2)); err != nil {
		t.Fatal("the right exponents are refused:", err)
	}
	for name, manifest := range hostileManifests() {
		if m, err := read(manifest); err == nil {
			t.Errorf("%s: accepted %+v", name, m)
		}
		if m, _, err := verify(t.Context(), bytes.NewReader(sealed(manifest, "payload"))); err == nil {
			t.Errorf("%s: accepted %+v", name, m)
		}
	}
}

// A file of a format before is no damaged one: it is named, with what to do.
func TestFormatsBeforeAreNamed(t *testing.T) {
	for _, format := range []string{"1", "2"} {
		old := []byte(strings.Replace(string(sealed(`{"format":1}`, "payload")), magic, magicOfAll+format, 1))
		if _, _, err := verify(t.Context(), bytes.NewReader(old)); err == nil ||
			!strings.Contains(err.Error(), "format "+format) ||
			!strings.Contains(err.Error(), "the build that wrote it") {
			t.Errorf("got %v", err)
		}
	}
}

// Each byte of a file is covered by its hash or by one of those in the state's head. A file of which some are not is
// refused, though all its hashes are right.
func TestEachByteIsCovered(t *testing.T) {
	of, junk := content(7), []byte("12345678")
	manifest, err := manifest(7, 1).head()
	if err != nil {
		t.Fatal(err)
	}
	manifest = bytes.Replace(manifest, []byte(`"format":0`), []byte(`"format":3`), 1)
	file := func(covered []byte, rest []byte, payload, length int) []byte {
		trailer := binary.LittleEndian.AppendUint64(nil, uint64(payload))
		trailer = binary.LittleEndian.AppendUint64(trailer, uint64(length))
		return slices.Concat(manifest, covered, rest, trailer, hashOf(manifest, covered, trailer))
	}
	whole := slices.Concat(of.Head, of.Image)
	// a head whose hash is of what follows it, which is shifted by what the file's hash covers beside it
	shifted := bytes.Clone(of.Head)
	sum := sha256.Sum256(slices.Concat(junk, of.Image[:len(of.Image)-len(junk)]))
	copy(shifted[len(shifted)-len(sum):], sum[:])
	h, all := len(of.Head), len(whole)
	for what, data := range map[string][]byte{
		"":                            file(of.Head, of.Image, all, h),
		"bytes after the image":       file(slices.Concat(shifted, junk), of.Image, all+len(junk), h+len(junk)),
		"bytes after the payload":     file(of.Head, slices.Concat(of.Image, junk), all, h),
		"a byte less than the head":   file(whole[:h-1], whole[h-1:], all, h-1),
		"a byte more than the head":   file(whole[:h+1], whole[h+1:], all, h+1),
		"all":                         file(whole, nil, all, all),
		"nothing":                     file(nil, whole, all, 0),
		"more than the payload":       file(whole, nil, all, all+1),
		"less than nothing":           file(whole, nil, all, -1),
		"a payload of another length": file(of.Head, of.Image, all-1, h),
	} {
		_, p, err := verify(t.Context(), bytes.NewReader(data))
		if (err == nil) != (what == "") {
			t.Errorf("%q: %v", what, err)
		}
		if err != nil {
			continue
		}
		if _, err := state.Read(p, layout(), 16, nil); err != nil {
			t.Errorf("%q: %v", what, err)
		}
	}
}

// Tensors of the tool's own that a reader does not know do not keep it from the others, if they are optional.
func TestOptionalTensorsAreIgnored(t *testing.T) {
	m := Manifest{Tensors: []Tensor{
		{Name: "w", Type: "float32", Shape: []int{3}, Role: "trained"},
		{Name: "evenweave/x", Type: "uint8", Shape: []int{5}, Role: "kept", Offset: 16, Optional: true},
	}}
	if layout, err := m.Layout(); err != nil || layout.Size != 24 || layout.Index("w") != 0 {
		t.Errorf("layout %+v, %v", layout, err)
	}
}

// A file may change after it was verified: what is read then is not what the hash vouches for.
func TestChangedAfterVerifying(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	path := mustSave(t, s, 7, 1)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(whole) - trailerSize - len(payloadOf(7)); i < len(whole)-trailerSize; i++ {
		_, payload, err := s.Read(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		whole[i] ^= 1
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if read, err := state.Read(payload, layout(), 16, nil); err == nil {
			t.Errorf("byte %d was changed: read step %d", i, read.Step)
		}
		whole[i] ^= 1
		if err := errors.Join(payload.Close(), os.WriteFile(path, whole, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOnlyRegularFilesAreCheckpoints(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600),
		os.Symlink("/dev/zero", filepath.Join(dir, "device"))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, filepath.Join(dir, "device"), dir} {
		if _, _, err := Read(t.Context(), path); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
