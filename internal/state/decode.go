package state

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"evenweave/internal/schedule"
)

// ErrDamaged is wrapped by the errors of Read for bytes that are not the encoding of the state that is expected.
var ErrDamaged = errors.New("damaged or truncated state")

// chunk is how much is allocated ahead of what has arrived.
const chunk = 1 << 16

// Any stands for a number of samples that the reader does not know.
const Any = -1

// Read reads the encoding of a state of that layout and number of samples, and nothing after it. sum is the SHA-256
// that it must have; nil: any. The head is verified before the image is read, each block as it arrives. An error wraps
// ErrDamaged if the bytes are not such a state, or else what r returned.
func Read(r io.Reader, layout *Layout, samples int, sum *[sha256.Size]byte) (*Sealed, error) {
	head, err := readHeader(r, layout, samples)
	if err != nil {
		return nil, err
	}
	ledgerSize := int64(field(head, 3))
	size := headerSize + ledgerSize + sha256.Size*blocks(layout.Size)
	for int64(len(head)) < size {
		n := min(size-int64(len(head)), chunk)
		head = append(head, make([]byte, n)...)
		if err := readFull(r, head[int64(len(head))-n:], "head"); err != nil {
			return nil, err
		}
	}
	found := sha256.Sum256(head)
	if sum != nil && found != *sum {
		return nil, fmt.Errorf("state: %w: its head has SHA-256 %x, expected %x", ErrDamaged, found, *sum)
	}
	ledger, err := schedule.DecodeLedger(head[headerSize : headerSize+ledgerSize])
	if err != nil {
		return nil, fmt.Errorf("state: %w: %w", ErrDamaged, err)
	}
	if samples != Any && ledger.Samples() != samples {
		return nil, fmt.Errorf("state: %w: it was trained on %d samples, expected %d",
			ErrDamaged, ledger.Samples(), samples)
	}
	s := &State{Step: int64(field(head, 2)), Ledger: ledger, Layout: layout}
	if s.Image, err = readImage(r, layout, head[headerSize+ledgerSize:]); err != nil {
		return nil, err
	}
	return &Sealed{State: s, Head: head, SHA256: found}, nil
}

func field(head []byte, i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }

// readHeader reads and checks the fields of fixed size.
func readHeader(r io.Reader, layout *Layout, samples int) ([]byte, error) {
	head := make([]byte, headerSize)
	if err := readFull(r, head[:16], "header"); err != nil {
		return nil, err
	}
	if got := string(head[:8]); got != magic {
		return nil, fmt.Errorf("state: %w: starts with %q, expected %q", ErrDamaged, got, magic)
	}
	if v := field(head, 1); v != version {
		return nil, fmt.Errorf("state: %w: format version %d: this program reads version %d; use the build that "+
			"wrote it", ErrDamaged, v, version)
	}
	if err := readFull(r, head[16:], "header"); err != nil {
		return nil, err
	}
	step, ledger, count, image := field(head, 2), field(head, 3), field(head, 4), field(head, 5)
	if step > math.MaxInt64 {
		return nil, fmt.Errorf("state: %w: step %d", ErrDamaged, step)
	}
	if most := uint64(schedule.LedgerSize(math.MaxInt32)); ledger > most || samples != Any &&
		ledger != uint64(schedule.LedgerSize(samples)) {
		return nil, fmt.Errorf("state: %w: step %d has a ledger of %d bytes, which is not one of %d samples",
			ErrDamaged, step, ledger, samples)
	}
	if image != uint64(layout.Size) || count != uint64(blocks(layout.Size)) {
		return nil, fmt.Errorf("state: %w: step %d has %d bytes of tensors in %d blocks, expected %d in %d: another "+
			"model's",
			ErrDamaged, step, image, count, layout.Size, blocks(layout.Size))
	}
	return head, nil
}

// readImage reads an image block by block, each verified by the table.
func readImage(r io.Reader, layout *Layout, table []byte) ([]byte, error) {
	var image []byte
	for at := int64(0); at < layout.Size; at += BlockSize {
		end := min(at+BlockSize, layout.Size)
		if int64(cap(image)) < end { // doubled: no more is allocated than a few times what has arrived, and a block
			image = append(make([]byte, 0, min(layout.Size, 2*at+BlockSize)), image...)
		}
		image = image[:end]
		where := fmt.Sprintf("block %d of %d, bytes %d to %d of the tensors, from %s on",
			at/BlockSize+1, blocks(layout.Size), at, end-1, layout.At(at))
		if err := readFull(r, image[at:], where); err != nil {
			return nil, err
		}
		expected := table[sha256.Size*(at/BlockSize):][:sha256.Size]
		if found := sha256.Sum256(image[at:]); string(found[:]) != string(expected) {
			return nil, fmt.Errorf("state: %w: %s: SHA-256 is %x, expected %x", ErrDamaged, where, found, expected)
		}
	}
	return image, layout.checkGaps(image)
}

// checkGaps finds bytes between the tensors that are not zero: equal states have equal encodings.
func (l *Layout) checkGaps(image []byte) error {
	for i, t := range l.Tensors {
		for _, b := range image[l.Offsets[i]+t.Bytes() : l.end(i)] {
			if b != 0 {
				return fmt.Errorf("state: %w: the bytes after tensor %s are not zero", ErrDamaged, t.Name)
			}
		}
	}
	return nil
}

func readFull(r io.Reader, b []byte, what string) error {
	_, err := io.ReadFull(r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return fmt.Errorf("state: %w: the data ends within the %s", ErrDamaged, what)
	}
	if err != nil {
		return fmt.Errorf("state: reading the %s: %w", what, err)
	}
	return nil
}
