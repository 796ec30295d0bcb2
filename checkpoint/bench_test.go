package checkpoint

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	"evenweave"
	"evenweave/internal/state"
)

// BenchmarkSave shows the parts of making one state durable, of the built-in model's size: hash, write, fsync, all of
// it, and pruning.
func BenchmarkSave(b *testing.B) {
	layout, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Float32, Shape: []int{334_852},
		Role: evenweave.Trained}})
	if err != nil {
		b.Fatal(err)
	}
	whole := state.Seal(state.New(layout, 1000))
	of := whole.Stream()
	m := Manifest{Tensors: Tensors(layout)}
	b.Run("hash", func(b *testing.B) {
		for b.Loop() {
			sha256.Sum256(whole.Image)
		}
	})
	file := func(b *testing.B, sync bool) {
		name := filepath.Join(b.TempDir(), "file")
		for b.Loop() {
			f, err := os.Create(name)
			if err != nil {
				b.Fatal(err)
			}
			if err = of.Image(f); err == nil && sync {
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
			m.Step = step // no file is read: it need not be the state's
			if _, err := s.Save(b.Context(), &m, of.Bytes, of.Image); err != nil {
				b.Fatal(err)
			}
			if !prune {
				continue
			}
			if _, err := s.Prune(b.Context(), 1, 3); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("save+prune", func(b *testing.B) { save(b, true) })
	b.Run("save", func(b *testing.B) { save(b, false) })
}
