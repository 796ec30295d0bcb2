package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"iter"

	"github.com/zeebo/xxh3"

	"evenweave/internal/schedule"
)

const (
	magic      = "EVWSTATE"
	headerSize = 48
	// BlockSize is the number of bytes of the image that one hash of the table covers.
	BlockSize = 1 << 20
)

// Versions of the encoding: what the table of hashes holds.
const (
	full  = 2 // SHA-256
	quick = 3 // XXH3-128, a tenth of the time, and zeros up to the size of a SHA-256: no guard against forgery
)

// hashOf is the hash of a block in the table of a version.
func hashOf(version uint64, p []byte) (h [sha256.Size]byte) {
	if version == quick {
		u := xxh3.Hash128(p).Bytes()
		copy(h[:], u[:])
		return h
	}
	return sha256.Sum256(p)
}

// blocks is how many an image of that many bytes has.
func blocks(image int64) int64 { return (image + BlockSize - 1) / BlockSize }

// HeadSize returns the length in bytes of what is before the image in the encoding of a state that was trained on that
// many samples.
func (l *Layout) HeadSize(samples int) int64 {
	return headerSize + int64(schedule.LedgerSize(samples)) + sha256.Size*blocks(l.Size)
}

// head is the encoding up to the image, of which block gives a part, within one block.
func head(version uint64, l *Layout, step int64, ledger *schedule.Ledger,
	block func(first, end int64) ([]byte, error)) ([]byte, error) {
	b := make([]byte, 0, l.HeadSize(ledger.Samples()))
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint64(b, version)
	for _, field := range []int64{step, int64(schedule.LedgerSize(ledger.Samples())), blocks(l.Size), l.Size} {
		b = binary.LittleEndian.AppendUint64(b, uint64(field))
	}
	b, _ = ledger.AppendBinary(b) // never fails
	for at := int64(0); at < l.Size; at += BlockSize {
		p, err := block(at, min(at+BlockSize, l.Size))
		if err != nil {
			return nil, err
		}
		h := hashOf(version, p)
		b = append(b, h[:]...)
	}
	return b, nil
}

// Sealed is a state that does not change any more, with its head.
type Sealed struct {
	*State
	Head   []byte
	SHA256 [sha256.Size]byte
}

// Seal hashes a state, which must not change from then on.
func Seal(s *State) *Sealed { return seal(full, s) }

// SealQuickly is Seal for a reader that compares the state's fingerprint with one that it knows: the blocks are hashed
// by XXH3. Only ReadQuickHead takes the encoding.
func SealQuickly(s *State) *Sealed { return seal(quick, s) }

func seal(version uint64, s *State) *Sealed {
	head, _ := head(version, s.Layout, s.Step, s.Ledger, func(first, end int64) ([]byte, error) { // never fails
		return s.Image[first:end], nil
	})
	return &Sealed{State: s, Head: head, SHA256: sha256.Sum256(head)}
}

// WriteTo writes the encoding.
func (s *Sealed) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(s.Head)
	total := int64(n)
	for at := int64(0); err == nil && at < int64(len(s.Image)); at += int64(n) {
		n, err = w.Write(s.Image[at:min(at+BlockSize, int64(len(s.Image)))])
		total += int64(n)
	}
	if err != nil {
		err = fmt.Errorf("state: writing step %d: %w", s.Step, err)
	}
	return total, err
}

// Size is the length of the encoding in bytes.
func (s *Sealed) Size() int64 { return int64(len(s.Head) + len(s.Image)) }

// Pieces are the encoding between two offsets, no piece across two blocks.
func (s *Sealed) Pieces(from, to int64) iter.Seq2[[]byte, error] {
	return pieces(s.Head, s.Layout.Size, from, to, func(first, end int64) ([]byte, error) {
		return s.Image[first:end], nil
	})
}

// Pieces are the encoding between two offsets; image gives a part of the image, within one block.
func (h *Head) Pieces(from, to int64, image func(first, end int64) ([]byte, error)) iter.Seq2[[]byte, error] {
	return pieces(h.Bytes, h.Layout.Size, from, to, image)
}

func pieces(head []byte, size, from, to int64,
	image func(first, end int64) ([]byte, error)) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		before := int64(len(head))
		if from < min(before, to) && !yield(head[from:min(before, to)], nil) {
			return
		}
		for at := max(from-before, 0); at < min(size, to-before); {
			end := min((at/BlockSize+1)*BlockSize, size, to-before)
			p, err := image(at, end)
			if !yield(p, err) || err != nil {
				return
			}
			at = end
		}
	}
}
