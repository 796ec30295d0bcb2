package state

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

func TestTheToolsTensorsFollowTheModels(t *testing.T) {
	model := mixed(t, false)
	l, err := OfJob(model.Tensors)
	if err != nil {
		t.Fatal(err)
	}
	last := l.Tensors[len(l.Tensors)-1]
	if last.Name != Exponents || last.Role != evenweave.Kept || !slices.Equal(last.Shape, []int{3}) {
		t.Errorf("the last tensor is %v: expected an exponent for each of three short blocks", last)
	}
	if of, err := l.OfModel(); err != nil || !of.Equal(model) || l.Summed() != model.Summed() {
		t.Errorf("the model's tensors are %v, %v", of, err)
	}
	for says, name := range map[string]string{"the tool's own": Exponents, "belong to": Reserved + "x"} {
		own := tensor(name, evenweave.Int32, evenweave.Kept, 3)
		if _, err := OfJob(append(slices.Clone(model.Tensors), own)); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("a model with a tensor %s: %v", name, err)
		}
	}
}

// The exponents are read and written by ranges, as every tensor is.
func TestLiveState(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	l, err := OfJob([]evenweave.Tensor{tensor("w", evenweave.Float32, evenweave.Trained, 700)})
	if err != nil {
		t.Fatal(err)
	}
	s := random(r, l, 10)
	live := l.Live(New(l, 10))
	if slices.ContainsFunc(live.Exponents, func(x int32) bool { return x != 0 }) {
		t.Errorf("the exponents begin as %d", live.Exponents)
	}
	if err := l.WriteImage(live, s.Image); err != nil {
		t.Fatal(err)
	}
	for i, x := range live.Exponents {
		if want := int32(binary.LittleEndian.Uint32(s.Tensor(1)[4*i:])); x != want {
			t.Errorf("exponent %d is %d, expected %d", i, x, want)
		}
	}
	if f, err := l.Fingerprint(s.Step, s.Ledger, live, nil); err != nil || f != s.Fingerprint() {
		t.Errorf("fingerprint %v, %v", f, err)
	}
	for lo := range int64(13) {
		for hi := lo; hi < 13; hi++ {
			p := make([]byte, hi-lo)
			if err := live.Read(1, lo, p); err != nil || !bytes.Equal(p, s.Tensor(1)[lo:hi]) {
				t.Fatalf("bytes %d to %d: %x, %v", lo, hi, p, err)
			}
			for i := range p {
				p[i] ^= 0x81
			}
			copy(s.Tensor(1)[lo:hi], p)
			if err := live.Write(1, lo, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		tensor int
		offset int64
		n      int
	}{{2, 0, 1}, {1, -1, 1}, {1, 12, 1}, {1, 0, 13}} {
		if live.Read(c.tensor, c.offset, make([]byte, c.n)) == nil ||
			live.Write(c.tensor, c.offset, make([]byte, c.n)) == nil {
			t.Errorf("%d bytes at %d of tensor %d", c.n, c.offset, c.tensor)
		}
	}
}
