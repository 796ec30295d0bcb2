package checkpoint

import (
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// BenchmarkSave shows the parts of making one state durable, of the built-in model's size: hash, write, fsync, all of
// it, and pruning.
func BenchmarkSave(b *testing.B) {
	state := make([]byte, 1_339_408)
	write := func(w io.Writer) error {
		_, err := w.Write(state)
		return err
	}
	b.Run("hash", func(b *testing.B) {
		for b.Loop() {
			sha256.Sum256(state)
		}
	})
	file := func(b *testing.B, sync bool) {
		name := filepath.Join(b.TempDir(), "file")
		for b.Loop() {
			f, err := os.Create(name)
			if err != nil {
				b.Fatal(err)
			}
			if err = write(f); err == nil && sync {
				err = f.Sync()
			}
			if err != nil || f.Close() != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("write", func(b *testing.B) { file(b, false) })
	b.Run("write+fsync", func(b *testing.B) { file(b, true) })
	save := func(b *testing.B, prune bool) {
		s, err := Open(b.TempDir(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		for step := int64(1); b.Loop(); step++ {
			if _, err := s.Save(b.Context(), Manifest{Step: step}, write); err != nil {
				b.Fatal(err)
			}
			if !prune {
				continue
			}
			if _, err := s.Prune(b.Context(), 3); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("save+prune", func(b *testing.B) { save(b, true) })
	b.Run("save", func(b *testing.B) { save(b, false) })
}
