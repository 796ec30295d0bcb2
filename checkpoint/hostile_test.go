package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
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
	for what, manifest := range map[string]string{"no tensors": `{"format":3}`, "exponents": exponents("int32", 2)} {
		if _, err := read(manifest); err != nil {
			t.Fatalf("%s: refused: %v", what, err)
		}
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

// What the hash covers, and what a state's head vouches for, is all of the payload: a file whose hash covers less of
// the state, or more, is refused, though all its hashes are right.
func TestTheHashCoversTheHead(t *testing.T) {
	of, m := content(7), manifest(7, 1)
	for _, at := range []int{0, 10, len(of.Head) - 1, len(of.Head), len(of.Head) + 1, len(of.Head) + len(of.Image)} {
		fs, whole := newMemFS(nil), []byte(payloadOf(7))
		s := open(t, dir, Options{FS: fs})
		path, err := s.Save(t.Context(), m, whole[:at], func(w io.Writer) error {
			_, err := w.Write(whole[at:])
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = open(t, dir, Options{FS: fs}).Read(t.Context(), path)
		if right := at == len(of.Head); (err == nil) != right {
			t.Errorf("the hash covers %d of %d bytes, the head has %d: %v", at, len(whole), len(of.Head), err)
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
	path := filepath.Join(t.TempDir(), "file")
	whole := sealed(`{"format":3}`, strings.Repeat("payload", 1000))
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	_, payload, err := Read(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer payload.Close()
	whole[100] ^= 1
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 7000)
	if n, err := io.ReadFull(payload, b); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("read %d bytes, %v", n, err)
	}

	here := t.TempDir()
	s := open(t, here, Options{})
	path = mustSave(t, s, 7, 1)
	if whole, err = os.ReadFile(path); err != nil {
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
