package state

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"

	"evenweave"
	"evenweave/internal/schedule"
)

// Stream is a state that need not be in memory as a whole.
type Stream struct {
	*Head
	Image func(w io.Writer) error // writes the image, in order
}

// Stream gives a state that is in memory.
func (s *Sealed) Stream() Stream {
	return Stream{&Head{Bytes: s.Head, SHA256: s.SHA256, Step: s.Step, Ledger: s.Ledger, Layout: s.Layout},
		func(w io.Writer) error {
			_, err := w.Write(s.Image)
			return err
		}}
}

// StreamOf is the state of step and ledger whose tensors from holds. They are read twice, block by block, and must not
// change meanwhile.
func (l *Layout) StreamOf(step int64, ledger *schedule.Ledger, from Reader) (Stream, error) {
	buffer := make([]byte, min(l.Size, BlockSize))
	block := func(first, end int64) ([]byte, error) {
		return buffer[:end-first], l.ReadImage(from, first, buffer[:end-first])
	}
	b, err := head(full, l, step, ledger, block)
	if err != nil {
		return Stream{}, err
	}
	h := &Head{Bytes: b, SHA256: sha256.Sum256(b), Step: step, Ledger: ledger, Layout: l}
	return Stream{h, func(w io.Writer) error { return h.writeImage(w, block) }}, nil
}

// Encoded is the state whose encoding r gives, each block verified as it is passed on.
func Encoded(r io.Reader, layout *Layout, samples int) (Stream, error) {
	h, err := ReadHead(r, layout, samples, nil)
	if err != nil {
		return Stream{}, err
	}
	buffer := make([]byte, min(layout.Size, BlockSize))
	return Stream{h, func(w io.Writer) error {
		return h.writeImage(w, func(first, end int64) ([]byte, error) {
			return buffer[:end-first], h.ReadBlock(r, int(first/BlockSize), buffer[:end-first])
		})
	}}, nil
}

func (h *Head) writeImage(w io.Writer, block func(first, end int64) ([]byte, error)) error {
	for i := range h.Blocks() {
		p, err := block(h.Range(i))
		if err != nil {
			return err
		}
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// Encode writes the encoding.
func (s Stream) Encode(w io.Writer) error {
	if _, err := w.Write(s.Bytes); err != nil {
		return err
	}
	return s.Image(w)
}

// Digest hashes an image that is written to it, in order.
type Digest struct {
	layout  *Layout
	of      *Head // nil: any
	tensor  int
	at      int64  // of the image
	part    []byte // of a block of the fingerprint, begun and not ended
	sum     Fingerprint
	weights hash.Hash
}

// NewDigest begins with an image of that layout.
func NewDigest(layout *Layout) *Digest {
	return &Digest{layout: layout, part: make([]byte, 0, FingerprintBlock), weights: sha256.New()}
}

// Reset begins with the image of a state of the same layout.
func (d *Digest) Reset(of *Head) {
	d.of, d.tensor, d.at, d.part, d.sum = of, 0, 0, d.part[:0], Fingerprint{}
	d.weights.Reset()
}

// known says whether reading the state has given the hash of the weights.
func (d *Digest) known() bool { return d.of != nil && d.of.weights != "" }

// Write takes the next bytes of the image. It never fails.
func (d *Digest) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 && d.tensor < len(d.layout.Tensors) {
		n := int(min(d.layout.end(d.tensor)-d.at, int64(len(p)))) // the gap behind the tensor, or less
		if t := d.layout.Tensors[d.tensor]; d.at-d.layout.Offsets[d.tensor] < t.Bytes() {
			n = d.take(p, d.at-d.layout.Offsets[d.tensor], t)
		}
		p, d.at = p[n:], d.at+int64(n)
		if d.at == d.layout.end(d.tensor) {
			d.tensor++
		}
	}
	return all, nil
}

// take hashes the bytes from offset on of a tensor, up to the end of their block of the fingerprint.
func (d *Digest) take(p []byte, offset int64, t evenweave.Tensor) int {
	index, within := offset/FingerprintBlock, offset%FingerprintBlock
	left := min(FingerprintBlock-within, t.Bytes()-offset)
	n := min(left, int64(len(p)))
	if (t.Role == evenweave.Trained || t.Role == evenweave.Averaged) && !d.known() {
		d.weights.Write(p[:n])
	}
	if n == left && len(d.part) == 0 {
		d.sum = d.sum.Add(Block(d.tensor, index, p[:n]))
	} else if d.part = append(d.part, p[:n]...); n == left {
		d.sum = d.sum.Add(Block(d.tensor, index, d.part))
		d.part = d.part[:0]
	}
	return int(n)
}

// Fingerprint is that of the state, once its whole image is written.
func (d *Digest) Fingerprint(h *Head) (Fingerprint, error) {
	head, err := FingerprintHead(h.Step, h.Ledger)
	return head.Add(d.sum), err
}

// WeightsSHA256 is the hexadecimal SHA-256 of the tensors of role trained, then of those of role averaged, in their
// order: that of the image, since those that are trained come first.
func (d *Digest) WeightsSHA256() string {
	if d.known() {
		return d.of.weights
	}
	return hex.EncodeToString(d.weights.Sum(nil))
}
