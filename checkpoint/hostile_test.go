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
)

// sealed is a file whose lengths and hash are right, whatever it holds.
func sealed(manifest, payload string) []byte {
	file := binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(manifest)))
	file = append(file, manifest+payload...)
	file = binary.LittleEndian.AppendUint64(file, uint64(len(payload)))
	sum := sha256.Sum256(file)
	return append(file, sum[:]...)
}

func hostileManifests() map[string]string {
	return map[string]string{
		"negative shape":        `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[-1,-1]}]}`,
		"zero in a shape":       `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[0,5]}]}`,
		"shape overflows to 0":  `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[4294967296,4294967296]}]}`,
		"shape overflows":       `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[3037000500,3037000500]}]}`,
		"negative offset":       `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[1],"offset":-1}]}`,
		"unknown type":          `{"format":2,"tensors":[{"name":"w","type":"complex","role":"trained","shape":[1]}]}`,
		"unknown role":          `{"format":2,"tensors":[{"name":"w","type":"float32","role":"king","shape":[1]}]}`,
		"hole":                  `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[1],"offset":8}]}`,
		"nothing is trained":    `{"format":2,"tensors":[{"name":"w","type":"float32","role":"kept","shape":[1]}]}`,
		"two of a name":         `{"format":2,"tensors":[{"name":"w","type":"uint8","role":"trained","shape":[8]},{"name":"w","type":"uint8","role":"trained","shape":[8],"offset":8}]}`,
		"a tool's own, unknown": `{"format":2,"tensors":[{"name":"w","type":"uint8","role":"trained","shape":[8]},{"name":"evenweave/x","type":"uint8","role":"kept","shape":[8],"offset":8}]}`,
		"too many exponents":    exponents("int32", 3),
		"exponents of a type":   exponents("uint32", 2),
		"sum overflows":         `{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[2],"offset":9223372036854775807}]}`,
		"negative step":         `{"format":2,"step":-1}`,
		"negative term":         `{"format":2,"term":-1}`,
		"another format":        `{"format":1}`,
		"a long manifest":       `{"format":2,"tensors":[` + strings.Repeat(`{},`, maxManifest/3) + `{}]}`,
	}
}

// exponents is the manifest of two blocks with so many exponents of a type.
func exponents(dtype string, n int) string {
	return fmt.Sprintf(`{"format":2,"tensors":[{"name":"w","type":"float32","role":"trained","shape":[300]},`+
		`{"name":"evenweave/exponents","type":%q,"role":"kept","shape":[%d],"offset":1200}]}`, dtype, n)
}

func TestHostileManifestsAreRefused(t *testing.T) {
	if _, _, err := verify(t.Context(), bytes.NewReader(sealed(`{"format":2}`, ""))); err != nil {
		t.Fatal("the file that these are made of is broken:", err)
	}
	if _, _, err := verify(t.Context(), bytes.NewReader(sealed(exponents("int32", 2), ""))); err != nil {
		t.Fatal("the right exponents are refused:", err)
	}
	for name, manifest := range hostileManifests() {
		if m, _, err := verify(t.Context(), bytes.NewReader(sealed(manifest, "payload"))); err == nil {
			t.Errorf("%s: accepted %+v", name, m)
		}
	}
}

// A file of the format before is no damaged one: it is named, with what to do.
func TestTheFormatBeforeIsNamed(t *testing.T) {
	old := []byte(strings.Replace(string(sealed(`{"format":1}`, "payload")), magic, magicBefore, 1))
	if _, _, err := verify(t.Context(), bytes.NewReader(old)); err == nil ||
		!strings.Contains(err.Error(), "format 1") ||
		!strings.Contains(err.Error(), "the build that wrote it") {
		t.Errorf("got %v", err)
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
	whole := sealed(`{"format":2}`, strings.Repeat("payload", 1000))
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
