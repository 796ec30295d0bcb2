package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"

	"evenweave"
)

// However an image is cut, its digest is the state's fingerprint, and the hash of the trained tensors and the averaged
// ones, without what lies between; also if another image was begun before.
func TestDigestOfPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var tensors []evenweave.Tensor
		var weights []byte
		for i := range 1 + r.IntN(5) {
			role := evenweave.Trained
			if i > 0 {
				role = evenweave.Averaged
			}
			if i > 0 && r.IntN(2) == 0 {
				role = evenweave.Kept
			}
			tensors = append(tensors, evenweave.Tensor{Name: string(rune('a' + i)), Type: evenweave.Uint8, Role: role,
				Shape: []int{1 + r.IntN(1+r.IntN(3*FingerprintBlock))}})
		}
		l, err := NewLayout(tensors)
		if err != nil {
			t.Fatal(err)
		}
		s := New(l, 10)
		s.Step = 3
		for i, tensor := range tensors {
			for at := range s.Tensor(i) {
				s.Tensor(i)[at] = byte(r.Uint32())
			}
			if tensor.Role != evenweave.Kept {
				weights = append(weights, s.Tensor(i)...)
			}
		}
		stream := Seal(s).Stream()
		var image bytes.Buffer
		if err := stream.Image(&image); err != nil {
			t.Fatal(err)
		}
		d := NewDigest(l)
		if begun := r.IntN(1 + image.Len()); begun > 0 { // of another image, which was given up
			_, _ = d.Write(image.Bytes()[:begun])
			d.Reset(nil)
		}
		for rest := image.Bytes(); len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(2*FingerprintBlock))
			if written, err := d.Write(rest[:n]); written != n || err != nil {
				t.Fatal(written, err)
			}
			rest = rest[n:]
		}
		found, err := d.Fingerprint(stream.Head)
		if err != nil || found != s.Fingerprint() {
			t.Fatalf("fingerprint %s, expected %s: %v", found, s.Fingerprint(), err)
		}
		if sum := sha256.Sum256(weights); d.WeightsSHA256() != hex.EncodeToString(sum[:]) {
			t.Fatal("the hash is not that of the weights")
		}
	}
}

// TestStreamsAreTheEncoding: of a state that is read where it lies, and of one that arrives; what is damaged or ends
// too soon is refused before it is passed on.
func TestStreamsAreTheEncoding(t *testing.T) {
	l, err := OfJob([]evenweave.Tensor{
		{Name: "a", Type: evenweave.Float32, Shape: []int{BlockSize/4 + 3}, Role: evenweave.Trained},
		{Name: "b", Type: evenweave.Uint8, Shape: []int{BlockSize + 5}, Role: evenweave.Kept},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := New(l, 100)
	for i := range s.Image[:l.Offsets[2]] {
		s.Image[i] = byte(i * i >> 8)
	}
	clear(s.Image[l.Offsets[1]+BlockSize+5 : l.Offsets[2]]) // the gap
	clear(s.Image[BlockSize+12 : l.Offsets[1]])
	var whole, read, passed bytes.Buffer
	if _, err := Seal(s).WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	live, err := l.StreamOf(0, s.Ledger, s)
	if err == nil {
		err = live.Encode(&read)
	}
	if err != nil || !bytes.Equal(read.Bytes(), whole.Bytes()) || live.SHA256 != Seal(s).SHA256 {
		t.Errorf("read where it lies, %d bytes are not the encoding, of %d: %v", read.Len(), whole.Len(), err)
	}
	arrives, err := Encoded(&read, l, 100)
	if err == nil {
		err = arrives.Encode(&passed)
	}
	if err != nil || !bytes.Equal(passed.Bytes(), whole.Bytes()) {
		t.Errorf("as it arrives, %d bytes are not the encoding, of %d: %v", passed.Len(), whole.Len(), err)
	}
	for name, b := range map[string][]byte{
		"its end is missing": whole.Bytes()[:whole.Len()-1],
		"a bit has flipped":  append(whole.Bytes()[:whole.Len()-1:whole.Len()-1], whole.Bytes()[whole.Len()-1]^1),
		"it is empty":        nil,
	} {
		passed.Reset()
		arrives, err := Encoded(bytes.NewReader(b), l, 100)
		if err == nil {
			err = arrives.Encode(&passed)
		}
		if !errors.Is(err, ErrDamaged) || passed.Len() > whole.Len()-int(l.Size%BlockSize) {
			t.Errorf("%s: %v, after %d bytes", name, err, passed.Len())
		}
	}
	broken := errors.New("a device")
	if _, err := l.StreamOf(0, s.Ledger, brokenReader{broken}); !errors.Is(err, broken) {
		t.Errorf("a model that cannot be read: %v", err)
	}
}

type brokenReader struct{ error }

func (b brokenReader) Read(int, int64, []byte) error { return b.error }

// The hash of the weights that comes with reading the blocks is that of the weights, wherever they lie: at the
// beginning of the first block, beyond it, with gaps or other tensors between them. A damaged block leaves none.
func TestWeightsAreHashedOnTheWay(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	onTheWay := 0
	for range 40 {
		var tensors []evenweave.Tensor
		for i := range 1 + r.IntN(4) {
			role := []evenweave.Role{evenweave.Trained, evenweave.Averaged, evenweave.Kept}[min(i, r.IntN(3))]
			if role == evenweave.Trained && i > 0 && tensors[i-1].Role != role {
				role = evenweave.Kept
			}
			size := 8 * (1 + r.IntN(60_000))
			if r.IntN(4) == 0 {
				size += r.IntN(8)
			}
			tensors = append(tensors, evenweave.Tensor{Name: string(rune('a' + i)), Type: evenweave.Uint8, Role: role,
				Shape: []int{size}})
		}
		l, err := NewLayout(tensors)
		if err != nil {
			t.Fatal(err)
		}
		s := New(l, 10)
		for i := range tensors {
			for at := 0; at < len(s.Tensor(i)); at += 1 + r.IntN(500) {
				s.Tensor(i)[at] = byte(r.Uint32())
			}
		}
		sealed := Seal(s)
		d, plain := NewDigest(l), NewDigest(l)
		_, _ = plain.Write(s.Image)
		h := sealed.Stream().Head
		d.Reset(h)
		for i := range h.Blocks() {
			first, end := h.Range(i)
			damaged := bytes.Clone(s.Image[first:end])
			damaged[r.IntN(len(damaged))] ^= 1
			p := make([]byte, end-first)
			if err := h.ReadInOrder(bytes.NewReader(damaged), i, p); err == nil || i == 0 && d.known() {
				t.Fatalf("a damaged block: %v, its weights count: %v", err, d.known())
			}
			if err := h.ReadInOrder(bytes.NewReader(s.Image[first:end]), i, p); err != nil {
				t.Fatal(err)
			}
			_, _ = d.Write(p)
		}
		if d.known() {
			onTheWay++
		}
		if d.known() != (l.weightsEnd() > 0) || d.WeightsSHA256() != plain.WeightsSHA256() {
			t.Fatalf("weights %s, expected %s; on the way: %v", d.WeightsSHA256(), plain.WeightsSHA256(), d.known())
		}
		a, _ := d.Fingerprint(h)
		if b := s.Fingerprint(); a != b {
			t.Fatalf("fingerprint %s, expected %s", a, b)
		}
	}
	if onTheWay < 10 || onTheWay > 30 {
		t.Errorf("%d of 40 on the way: the layouts try only one way", onTheWay)
	}
}
