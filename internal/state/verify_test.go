package state

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"evenweave"
)

// Verify names exactly the blocks that were damaged, with the tensor that they begin in, and goes on behind each.
func TestVerifyNamesEachDamagedBlock(t *testing.T) {
	l := layout(t, tensor("a", evenweave.Uint8, evenweave.Trained, BlockSize+8),
		tensor("b", evenweave.Float32, evenweave.Kept, BlockSize/2))
	s := random(rand.New(rand.NewPCG(8, 8)), l, 130)
	s.Step = 7
	var whole bytes.Buffer
	if _, err := Seal(s).WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	image := whole.Len() - int(l.Size)
	for damaged := range 1 << blocks(l.Size) {
		b := bytes.Clone(whole.Bytes())
		var want []string
		for i := range int(blocks(l.Size)) {
			if damaged>>i&1 == 1 {
				b[image+i*BlockSize+i] ^= 1
				want = append(want, fmt.Sprint(i+1, l.At(int64(i)*BlockSize)))
			}
		}
		found, wrong := Verify(bytes.NewReader(b), l)
		var got []string
		for _, err := range wrong {
			var block *BlockError
			if !errors.As(err, &block) || !errors.Is(err, ErrDamaged) || block.Found == block.Expected {
				t.Fatalf("%v", err)
			}
			got = append(got, fmt.Sprint(block.Block, block.Tensor))
		}
		if strings.Join(got, ",") != strings.Join(want, ",") {
			t.Errorf("named %v, want %v", got, want)
		}
		if damaged == 0 && found != (Summary{Step: 7, Epoch: s.Ledger.Epochs(), Fingerprint: s.Fingerprint(),
			WeightsSHA256: fmt.Sprintf("%x", sha256.Sum256(s.Tensor(0)))}) {
			t.Errorf("found %+v", found)
		}
	}
	gaps := layout(t, tensor("a", evenweave.Uint8, evenweave.Trained, BlockSize+3))
	s = random(rand.New(rand.NewPCG(8, 8)), gaps, 130)
	s.Image[BlockSize+6] = 1
	var untidy bytes.Buffer
	if _, err := Seal(s).WriteTo(&untidy); err != nil {
		t.Fatal(err)
	}
	if _, wrong := Verify(&untidy, gaps); len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "after tensor a") {
		t.Errorf("bytes between tensors: %v", wrong)
	}
	for _, n := range []int{0, 40, image - 1, image + 5, whole.Len() - 1} {
		if _, wrong := Verify(bytes.NewReader(whole.Bytes()[:n]), l); len(wrong) != 1 ||
			!errors.Is(wrong[0], ErrDamaged) {
			t.Errorf("cut after %d bytes: %v", n, wrong)
		}
	}
}
