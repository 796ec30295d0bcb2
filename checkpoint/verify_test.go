package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave"
	"evenweave/internal/state"
)

// Any flipped bit of a file is found, and named by block where it is within the tensors; so is what a whole file cannot
// hold.
func TestVerifyNamesTheDamage(t *testing.T) {
	dir := t.TempDir()
	layout, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Float32, Shape: []int{6},
		Role: evenweave.Trained}})
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(layout, 16)
	s.Step = 7
	m := describe(s)
	m.Term = 1
	of := state.Seal(s).Stream()
	path, err := open(t, dir, Options{}).Save(t.Context(), &m, of.Bytes, of.Image)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Verify(t.Context(), path); err != nil || got.Step != 7 {
		t.Fatal(got, err)
	}
	if got, size, err := Peek(path); err != nil || got.Step != 7 || size < 200 {
		t.Errorf("%+v, %d bytes, %v", got, size, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image := len(whole) - trailerSize - int(layout.Size)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1 << (i % 8)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var damaged *DamagedError
		var block *BlockError
		_, err := Verify(t.Context(), path)
		within := i >= image && i < image+int(layout.Size)
		if !errors.As(err, &damaged) || damaged.Path != path {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if named := errors.As(err, &block) && block.Tensor == "w"; within && !named {
			t.Fatalf("byte %d of the tensors flipped: %v", i-image, err)
		}
		if i >= len(whole)-sha256.Size && !strings.Contains(err.Error(), "before and after the tensors") {
			t.Fatalf("byte %d of the hash flipped: %v", i, err)
		}
	}
	renamed := filepath.Join(dir, fileName(8, 1))
	if err := os.WriteFile(renamed, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), renamed); err == nil || !strings.Contains(err.Error(), "it was renamed") {
		t.Errorf("another name: %v", err)
	}
	other := filepath.Join(dir, "kept.ckpt") // a name that promises no step
	if err := os.Rename(renamed, other); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), other); err != nil {
		t.Errorf("a copy: %v", err)
	}
}

// A whole file whose manifest says of the state what is not so is no checkpoint: people and programs pin weights by the
// hash that it names.
func TestAFalseManifestIsNamed(t *testing.T) {
	of := content(7)
	for want, falsify := range map[string]func(*Manifest){
		"":                        func(*Manifest) {},
		"its manifest of step 9":  func(m *Manifest) { m.Step = 9 },
		"its manifest says 2":     func(m *Manifest) { m.Epoch = 2 },
		`its manifest says "bbbb`: func(m *Manifest) { m.Fingerprint = strings.Repeat("b", 32) },
		`its manifest says "aaaa`: func(m *Manifest) { m.WeightsSHA256 = strings.Repeat("a", 64) },
		`its manifest says ""`:    func(m *Manifest) { m.WeightsSHA256 = "" },
	} {
		dir, m := t.TempDir(), manifest(7, 1)
		falsify(m)
		path, err := open(t, dir, Options{}).Save(t.Context(), m, of.Head, of.Stream().Image)
		if err != nil {
			t.Fatal(err)
		}
		_, verified := Verify(t.Context(), path)
		_, loaded := Load(t.Context(), path)
		_, latest := open(t, dir, Options{}).Latest(t.Context())
		for _, err := range []error{verified, loaded, latest} {
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("%q: %v", want, err)
			}
		}
	}
}
