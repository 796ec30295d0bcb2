package state

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"evenweave"
)

func TestImpossibleTensorsAreRefused(t *testing.T) {
	good := tensor("w", evenweave.Float32, evenweave.Trained, 2)
	for says, tensors := range map[string][]evenweave.Tensor{
		"0 tensors":       nil,
		"printable ASCII": {tensor("a b", evenweave.Float32, evenweave.Trained, 2)},
		"1 to 200":        {tensor(strings.Repeat("n", 201), evenweave.Float32, evenweave.Trained, 2)},
		"has this name":   {good, good},
		"unknown type":    {tensor("w", "complex", evenweave.Trained, 2)},
		"unknown role":    {good, tensor("x", evenweave.Float32, 9, 2)},
		"at least 1":      {tensor("w", evenweave.Float32, evenweave.Trained, 2, 0)},
		"product":         {tensor("w", evenweave.Float32, evenweave.Trained, 1<<20, 1<<20, 1<<40)},
		"come first":      {tensor("w", evenweave.Float32, evenweave.Kept, 2)},
		"not: those": {good, tensor("x", evenweave.Float32, evenweave.Kept, 2),
			tensor("y", evenweave.Float32, evenweave.Trained, 2)},
		"the tool's own": {good, tensor("evenweave/x", evenweave.Float32, evenweave.Averaged, 2)},
	} {
		if _, err := NewLayout(tensors); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}

// TestTheFirstTensorThatDiffersIsNamed: with both types, shapes and roles.
func TestTheFirstTensorThatDiffersIsNamed(t *testing.T) {
	of := func(tensors ...evenweave.Tensor) *Layout {
		l, err := NewLayout(tensors)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	w, v := tensor("w", evenweave.Float32, evenweave.Trained, 2), tensor("v", evenweave.Float32, evenweave.Trained, 3)
	wider := tensor("v", evenweave.Float32, evenweave.Trained, 4)
	for _, row := range []struct {
		held, model *Layout
		want        string
	}{
		{of(w, v), of(w, wider), "its tensor v is float32[3] (trained), the model's is float32[4] (trained)"},
		{of(w), of(w, v), "it has no tensor v, which the model has: float32[3]"},
		{of(w, v), of(v, w), "its tensor 0 is w, the model's is v"},
		{of(w, v), of(w), "it has 2 tensors, the model 1"},
	} {
		if got := row.held.Other(row.model); got != row.want {
			t.Errorf("%q, want %q", got, row.want)
		}
	}
}

// What is read of an image by ranges, whatever they are, is the image; and writing it gives the tensors back.
func TestImagesAreReadByRanges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	l := mixed(t, false)
	s := random(r, l, 10)
	for lo := range l.Size {
		for hi := lo; hi <= l.Size; hi++ {
			p := bytes.Repeat([]byte{0xff}, int(hi-lo)) // gaps become zeros
			if err := l.ReadImage(s, lo, p); err != nil || !bytes.Equal(p, s.Image[lo:hi]) {
				t.Fatalf("bytes %d to %d: %x, %v, expected %x", lo, hi, p, err, s.Image[lo:hi])
			}
		}
	}
	copied := New(l, 10)
	if err := l.WriteImage(copied, s.Image); err != nil || !bytes.Equal(copied.Image, s.Image) {
		t.Errorf("the image was written as %x, %v", copied.Image, err)
	}
	for i, o := range l.Offsets {
		if o%alignment != 0 || l.At(o) != l.Tensors[i].Name || l.Index(l.Tensors[i].Name) != i {
			t.Errorf("tensor %d is at %d", i, o)
		}
	}
	if parts := l.Split(make([]float32, l.Summed())); len(parts) != 3 || len(parts[1]) != 3 ||
		cap(parts[0]) != l.Summed() {
		t.Errorf("a gradient of %d elements is split into %d parts", l.Summed(), len(parts))
	}
}
