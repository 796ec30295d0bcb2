package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"evenweave/internal/schedule"
)

const (
	magic      = "EVWSTATE"
	version    = 2
	headerSize = 48
	// BlockSize is the number of bytes of the image that one SHA-256 of the table covers.
	BlockSize = 1 << 20
)

// blocks is how many an image of that many bytes has.
func blocks(image int64) int64 { return (image + BlockSize - 1) / BlockSize }

// HeadSize returns the length in bytes of what is before the image in the encoding of a state that was trained on that
// many samples.
func (l *Layout) HeadSize(samples int) int64 {
	return headerSize + int64(schedule.LedgerSize(samples)) + sha256.Size*blocks(l.Size)
}

// head is the encoding up to the image.
func (s *State) head() []byte {
	ledger := schedule.LedgerSize(s.Ledger.Samples())
	b := make([]byte, 0, s.Layout.HeadSize(s.Ledger.Samples()))
	b = append(b, magic...)
	for _, field := range []int64{version, s.Step, int64(ledger), blocks(s.Layout.Size), s.Layout.Size} {
		b = binary.LittleEndian.AppendUint64(b, uint64(field))
	}
	b, _ = s.Ledger.AppendBinary(b) // never fails
	for at := int64(0); at < s.Layout.Size; at += BlockSize {
		sum := sha256.Sum256(s.Image[at:min(at+BlockSize, s.Layout.Size)])
		b = append(b, sum[:]...)
	}
	return b
}

// Sealed is a state that does not change any more, with its head.
type Sealed struct {
	*State
	Head   []byte
	SHA256 [sha256.Size]byte
}

// Seal hashes a state, which must not change from then on.
func Seal(s *State) *Sealed {
	head := s.head()
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

// ReadAt implements io.ReaderAt over the encoding.
func (s *Sealed) ReadAt(p []byte, at int64) (n int, err error) {
	for _, part := range [][]byte{s.Head, s.Image} {
		if size := int64(len(part)); at >= size {
			at -= size
			continue
		}
		n += copy(p[n:], part[at:])
		at = 0
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
