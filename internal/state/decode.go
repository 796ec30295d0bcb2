package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"

	"evenweave"
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
	h, err := ReadHead(r, layout, samples, sum)
	if err != nil {
		return nil, err
	}
	image, err := readImage(r, layout, h.Bytes)
	if err != nil {
		return nil, err
	}
	return h.With(image), nil
}

// Head is all of a state's encoding before its image: it names the state, and says whether a block belongs to it.
type Head struct {
	Bytes  []byte
	SHA256 [sha256.Size]byte
	Step   int64
	Ledger *schedule.Ledger
	Layout *Layout

	weights string // their SHA-256, once ReadInOrder has met it
}

// ReadHead reads and verifies the head of a state, as Read does, and nothing after it.
func ReadHead(r io.Reader, layout *Layout, samples int, sum *[sha256.Size]byte) (*Head, error) {
	return readHeadOf(full, r, layout, samples, sum)
}

// ReadQuickHead is ReadHead for what SealQuickly made, too. The caller must compare the fingerprint of the state.
func ReadQuickHead(r io.Reader, layout *Layout, samples int) (*Head, error) {
	return readHeadOf(quick, r, layout, samples, nil)
}

// readHeadOf is ReadHead for versions up to newest.
func readHeadOf(newest uint64, r io.Reader, layout *Layout, samples int, sum *[sha256.Size]byte) (*Head, error) {
	b, err := readHead(r, layout, samples, newest)
	if err != nil {
		return nil, err
	}
	h := &Head{Bytes: b, SHA256: sha256.Sum256(b), Step: int64(field(b, 2)), Layout: layout}
	if sum != nil && h.SHA256 != *sum {
		return nil, fmt.Errorf("state: %w: its head has SHA-256 %x, expected %x", ErrDamaged, h.SHA256, *sum)
	}
	h.Ledger, err = decodeLedger(b, samples)
	return h, err
}

// Quick reports whether the blocks are hashed by XXH3: only ReadQuickHead takes the head then.
func (h *Head) Quick() bool { return field(h.Bytes, 1) == quick }

// Blocks is how many blocks the image has.
func (h *Head) Blocks() int { return int(blocks(h.Layout.Size)) }

// Range is the part of the image that a block covers.
func (h *Head) Range(block int) (first, end int64) {
	first = int64(block) * BlockSize
	return first, min(first+BlockSize, h.Layout.Size)
}

// ReadBlock reads a block into p, which has its size, and verifies it. An error wraps ErrDamaged if it is another
// block, or what r returned.
func (h *Head) ReadBlock(r io.Reader, block int, p []byte) error {
	first, _ := h.Range(block)
	if err := h.Layout.readBlock(r, first, p, h.Bytes); err != nil {
		return err
	}
	return h.Layout.checkGaps(p, first)
}

// ReadInOrder is ReadBlock for one goroutine that reads all blocks, of a head that ReadHead gave. Where the weights are
// the beginning of the first block, hashing that gives their hash on the way, which a Digest of this state then takes
// over.
func (h *Head) ReadInOrder(r io.Reader, block int, p []byte) error {
	end := h.Layout.weightsEnd()
	if block > 0 || end == 0 {
		return h.ReadBlock(r, block, p)
	}
	h.weights = ""
	var weights []byte
	err := h.Layout.readBlockBy(r, 0, p, h.Bytes, func(p []byte) [sha256.Size]byte {
		sum := sha256.New()
		sum.Write(p[:end])
		weights = sum.Sum(nil) // which leaves sum as it is
		sum.Write(p[end:])
		return [sha256.Size]byte(sum.Sum(nil))
	})
	if err == nil {
		err = h.Layout.checkGaps(p, 0)
	}
	if err == nil {
		h.weights = hex.EncodeToString(weights)
	}
	return err
}

// weightsEnd is how many bytes the weights take if nothing else is before them or between them in the image, and they
// end in its first block; else 0.
func (l *Layout) weightsEnd() (end int64) {
	for i, t := range l.Tensors {
		if t.Role != evenweave.Trained && t.Role != evenweave.Averaged {
			continue
		}
		if l.Offsets[i] != end {
			return 0
		}
		end += t.Bytes()
	}
	if end > BlockSize {
		return 0
	}
	return end
}

// With is the state of an image of which all blocks are verified.
func (h *Head) With(image []byte) *Sealed {
	return &Sealed{State: &State{Step: h.Step, Ledger: h.Ledger, Layout: h.Layout, Image: image}, Head: h.Bytes,
		SHA256: h.SHA256}
}

// readHead reads all before the image, of a version up to newest.
func readHead(r io.Reader, layout *Layout, samples int, newest uint64) ([]byte, error) {
	head, err := readHeader(r, layout, samples, newest)
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
	return head, nil
}

func decodeLedger(head []byte, samples int) (*schedule.Ledger, error) {
	ledger, err := schedule.DecodeLedger(head[headerSize:][:field(head, 3)])
	if err != nil {
		return nil, fmt.Errorf("state: %w: %w", ErrDamaged, err)
	}
	if samples != Any && ledger.Samples() != samples {
		return nil, fmt.Errorf("state: %w: it was trained on %d samples, expected %d",
			ErrDamaged, ledger.Samples(), samples)
	}
	return ledger, nil
}

// table is the part of a head that holds the hashes of the blocks.
func table(head []byte) []byte { return head[headerSize+field(head, 3):] }

func field(head []byte, i int) uint64 { return binary.LittleEndian.Uint64(head[8*i:]) }

// readHeader reads and checks the fields of fixed size.
func readHeader(r io.Reader, layout *Layout, samples int, newest uint64) ([]byte, error) {
	head := make([]byte, headerSize)
	if err := readFull(r, head[:16], "header"); err != nil {
		return nil, err
	}
	if got := string(head[:8]); got != magic {
		return nil, fmt.Errorf("state: %w: starts with %q, expected %q", ErrDamaged, got, magic)
	}
	if v := field(head, 1); v < full || v > newest {
		return nil, fmt.Errorf("state: %w: format version %d: this program reads version %d; use the build that "+
			"wrote it", ErrDamaged, v, full)
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
			"model's", ErrDamaged, step, image, count, layout.Size, blocks(layout.Size))
	}
	return head, nil
}

// readImage reads an image block by block, each verified by the head.
func readImage(r io.Reader, layout *Layout, head []byte) ([]byte, error) {
	var image []byte
	for at := int64(0); at < layout.Size; at += BlockSize {
		end := min(at+BlockSize, layout.Size)
		if int64(cap(image)) < end { // doubled: no more is allocated than a few times what has arrived, and a block
			image = append(make([]byte, 0, min(layout.Size, 2*at+BlockSize)), image...)
		}
		image = image[:end]
		if err := layout.readBlock(r, at, image[at:], head); err != nil {
			return nil, err
		}
	}
	return image, layout.checkGaps(image, 0)
}

// readBlock reads the block that begins at a byte of the image, and verifies it.
func (l *Layout) readBlock(r io.Reader, at int64, block, head []byte) error {
	return l.readBlockBy(r, at, block, head, func(p []byte) [sha256.Size]byte { return hashOf(field(head, 1), p) })
}

// readBlockBy is readBlock with another way to the hash.
func (l *Layout) readBlockBy(r io.Reader, at int64, block, head []byte, sum func([]byte) [sha256.Size]byte) error {
	e := &BlockError{Block: at/BlockSize + 1, Blocks: blocks(l.Size), First: at, Last: at + int64(len(block)) - 1,
		Tensor: l.At(at), hash: "SHA-256"}
	if field(head, 1) == quick {
		e.hash = "XXH3-128"
	}
	if err := readFull(r, block, fmt.Sprintf("block %d of %d, bytes %d to %d of the tensors, from %s on",
		e.Block, e.Blocks, e.First, e.Last, e.Tensor)); err != nil {
		return err
	}
	e.Expected = [sha256.Size]byte(table(head)[sha256.Size*(at/BlockSize):])
	if e.Found = sum(block); e.Found != e.Expected {
		return e
	}
	return nil
}

// checkGaps finds bytes between the tensors that are not zero, in a part of the image that begins at a byte of it:
// equal states have equal encodings.
func (l *Layout) checkGaps(part []byte, at int64) error {
	for i, t := range l.Tensors {
		first, end := max(l.Offsets[i]+t.Bytes()-at, 0), min(l.end(i)-at, int64(len(part)))
		for ; first < end; first++ {
			if part[first] != 0 {
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
