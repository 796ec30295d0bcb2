package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"evenweave"
)

// However an image is cut, its digest is the state's fingerprint, and the hash of the trained tensors and the averaged
// ones, without what lies between.
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
