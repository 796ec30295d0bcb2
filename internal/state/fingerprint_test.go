package state

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"evenweave"
)

// The fingerprint sees every bit of every tensor, the step and the ledger.
func TestFingerprintSeesEverything(t *testing.T) {
	s := random(rand.New(rand.NewPCG(3, 3)), mixed(t, false), 130)
	seen := map[Fingerprint]bool{s.Fingerprint(): true}
	add := func(what string) {
		t.Helper()
		f := s.Fingerprint()
		if seen[f] || (f == Fingerprint{}) {
			t.Fatalf("%s: the fingerprint is the same", what)
		}
		seen[f] = true
	}
	for i := range s.Layout.Tensors {
		for bit := range 8 * len(s.Tensor(i)) {
			s.Tensor(i)[bit/8] ^= 1 << (bit % 8)
			add("a flipped bit")
			s.Tensor(i)[bit/8] ^= 1 << (bit % 8)
		}
	}
	s.Step++
	add("another step")
	if err := s.Ledger.Commit(0, []int32{1}); err != nil {
		t.Fatal(err)
	}
	add("another sample used")
}

// Bytes that move to another tensor or block, though each block's content is still there, give another fingerprint.
func TestFingerprintSeesOrder(t *testing.T) {
	l := layout(t, tensor("a", evenweave.Uint8, evenweave.Trained, 2*FingerprintBlock),
		tensor("b", evenweave.Uint8, evenweave.Trained, 2*FingerprintBlock))
	s := random(rand.New(rand.NewPCG(4, 4)), l, 10)
	before := s.Fingerprint()
	for i := range 4 {
		for j := range i {
			swapped := s.Clone()
			copy(swapped.Image[i*FingerprintBlock:(i+1)*FingerprintBlock], s.Image[j*FingerprintBlock:])
			copy(swapped.Image[j*FingerprintBlock:(j+1)*FingerprintBlock], s.Image[i*FingerprintBlock:])
			if swapped.Fingerprint() == before {
				t.Errorf("blocks %d and %d are swapped, and the fingerprint is the same", j, i)
			}
		}
	}
}

// Parts may be hashed in any order, and by any number of threads, each with a sum of its own.
func TestFingerprintIsIndependentOfOrderAndParts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	s := random(r, mixed(t, true), 1000)
	want := s.Fingerprint()
	ledger, _ := s.Ledger.AppendBinary(nil)
	type block struct {
		tensor int
		index  int64
	}
	var blocks []block
	for i := range s.Layout.Tensors {
		for at := 0; at < len(s.Tensor(i)); at += FingerprintBlock {
			blocks = append(blocks, block{i, int64(at / FingerprintBlock)})
		}
	}
	if len(blocks) < 30 {
		t.Fatalf("%d blocks show little", len(blocks))
	}
	for lanes := 1; lanes <= 5; lanes++ {
		r.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		sums := make([]Fingerprint, lanes)
		var running sync.WaitGroup
		for lane := range lanes {
			running.Go(func() {
				for i := lane; i < len(blocks); i += lanes {
					b := blocks[i]
					p := s.Tensor(b.tensor)[b.index*FingerprintBlock:]
					sums[lane] = sums[lane].Add(Block(b.tensor, b.index, p[:min(len(p), FingerprintBlock)]))
				}
			})
		}
		running.Wait()
		total := part(headPart, uint64(s.Step), ledger)
		for _, f := range sums {
			total = total.Add(f)
		}
		if total != want {
			t.Errorf("%d lanes: %v, expected %v", lanes, total, want)
		}
	}
}

// deaf is a device that cannot be read.
type deaf struct{}

func (deaf) Read(int, int64, []byte) error { return errors.New("the device is gone") }

func TestATensorThatCannotBeReadIsNamed(t *testing.T) {
	l := mixed(t, false)
	s := New(l, 10)
	if f, err := l.Fingerprint(1, s.Ledger, deaf{}, nil); err == nil || !strings.Contains(err.Error(), "tensor w") ||
		(f != Fingerprint{}) {
		t.Errorf("fingerprint %v, %v", f, err)
	}
	if err := l.ReadImage(deaf{}, 0, s.Image); err == nil || !strings.Contains(err.Error(), "tensor w") {
		t.Errorf("image: %v", err)
	}
}

// memory is a model of float32 tensors.
type memory []evenweave.Floats

func (m memory) Read(tensor int, offset int64, p []byte) error { return m[tensor].Read(offset, p) }

// The built-in CNN: 332,958 values in 18 tensors.
func BenchmarkFingerprint(b *testing.B) {
	var tensors []evenweave.Tensor
	var live memory
	for i := range 3 {
		for j, n := range []int{288, 32, 18432, 64, 92160, 10} {
			tensors = append(tensors, tensor(string(rune('a'+6*i+j)), evenweave.Float32, evenweave.Trained, n))
			live = append(live, make(evenweave.Floats, n))
		}
	}
	l := layout(b, tensors...)
	s, scratch := New(l, 60000), make([]byte, FingerprintBlock)
	b.SetBytes(l.Size)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Fingerprint(1, s.Ledger, live, scratch); err != nil {
			b.Fatal(err)
		}
	}
}

// Any number of summands, hashed in any order, give the same fingerprint.
func TestAFingerprintIsASumOfParts(t *testing.T) {
	l := mixed(t, false)
	s := New(l, 10)
	for i := range s.Image {
		s.Image[i] = byte(i * 7)
	}
	want := s.Fingerprint()
	for n := 1; n <= 5; n++ {
		sum, err := FingerprintHead(s.Step, s.Ledger)
		for i := n - 1; i >= 0 && err == nil; i-- {
			var p Fingerprint
			p, err = l.FingerprintOf(i, n, s, nil)
			sum = sum.Add(p)
		}
		if err != nil || sum != want {
			t.Errorf("%d parts: %s, %v, expected %s", n, sum, err, want)
		}
	}
}
