package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"evenweave"
	"evenweave/internal/schedule"
)

// tensor is one of some elements.
func tensor(name string, dtype evenweave.DType, role evenweave.Role, shape ...int) evenweave.Tensor {
	return evenweave.Tensor{Name: name, Type: dtype, Shape: shape, Role: role}
}

func layout(t testing.TB, tensors ...evenweave.Tensor) *Layout {
	t.Helper()
	l, err := NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// mixed is a layout with gaps between the tensors and, if large, several blocks of each kind.
func mixed(t testing.TB, large bool) *Layout {
	n := 5
	if large {
		n = (2*BlockSize + 3*FingerprintBlock/2) / 4
	}
	return layout(t, tensor("w", evenweave.Float32, evenweave.Trained, n),
		tensor("b", evenweave.BFloat16, evenweave.Trained, 3),
		tensor("mean", evenweave.Float64, evenweave.Averaged), tensor("mask", evenweave.Bool, evenweave.Kept, 7, 1),
		tensor("count", evenweave.Int64, evenweave.Kept, 2))
}

// random fills the tensors, and a ledger with every other sample used.
func random(r *rand.Rand, l *Layout, samples int) *State {
	s := New(l, samples)
	s.Step = r.Int64()
	for i := range l.Tensors {
		for j := range s.Tensor(i) {
			s.Tensor(i)[j] = byte(r.Uint32())
		}
	}
	for i := range int32(samples / 2) {
		if err := s.Ledger.Commit(0, []int32{2 * i}); err != nil {
			panic(err)
		}
	}
	return s
}

func encode(t testing.TB, s *State) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Seal(s).WriteTo(&b)
	if want := s.Layout.HeadSize(s.Ledger.Samples()) + s.Layout.Size; err != nil || n != int64(b.Len()) || n != want {
		t.Fatalf("wrote %d, counted %d, expected %d: %v", b.Len(), n, want, err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, large := range []bool{false, true} {
		l := mixed(t, large)
		s := random(r, l, r.IntN(1000))
		b := encode(t, s)
		stream := bytes.NewReader(append(b, "rest"...)) // another one may follow: Read must leave it alone
		got, err := Read(iotest.HalfReader(stream), l, s.Ledger.Samples(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(stream); string(rest) != "rest" {
			t.Errorf("Read consumed beyond the end: %q is left", rest)
		}
		if got.Step != s.Step || got.Fingerprint() != s.Fingerprint() || got.SHA256 != Seal(s).SHA256 ||
			!bytes.Equal(encode(t, got.State), b) {
			t.Error("another state came back")
		}
		if c := s.Clone(); c.Fingerprint() != s.Fingerprint() {
			t.Error("the clone differs")
		}
		if got, err := Read(bytes.NewReader(b), l, Any, &got.SHA256); err != nil ||
			got.Ledger.Samples() != s.Ledger.Samples() {
			t.Errorf("with the right hash and any number of samples: %v", err)
		}
		other := got.SHA256
		other[7] ^= 1
		if _, err := Read(io.MultiReader(bytes.NewReader(b[:len(got.Head)]),
			iotest.ErrReader(errors.New("the image was read"))), l, Any, &other); !errors.Is(err, ErrDamaged) {
			t.Errorf("another hash is not found before the image: %v", err)
		}
	}
}

// Any single flipped bit, anywhere, and any truncation is an error, which names the block.
func TestDamageIsFound(t *testing.T) {
	l := mixed(t, false)
	b := encode(t, random(rand.New(rand.NewPCG(2, 2)), l, 100))
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		_, err := Read(bytes.NewReader(b), l, 100, nil)
		at := i / 8
		// another step or ledger is another state
		own := at >= 16 && at < 24 || at >= headerSize && at < headerSize+schedule.LedgerSize(100)
		if err == nil && !own {
			t.Fatalf("bit %d flipped: no error", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	sum := Seal(random(rand.New(rand.NewPCG(2, 2)), l, 100)).SHA256
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if _, err := Read(bytes.NewReader(b), l, 100, &sum); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d flipped in the state of a known hash: %v", i, err)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := Read(bytes.NewReader(b[:n]), l, 100, nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	broken := errors.New("connection lost")
	if _, err := Read(io.MultiReader(bytes.NewReader(b[:60]), iotest.ErrReader(broken)), l, 100, nil); !errors.Is(err,
		broken) || errors.Is(err, ErrDamaged) {
		t.Errorf("a reader's error: %v", err)
	}
}

// TestQuickHashes: they find damage of any block, and only a reader that asks for them takes them.
func TestQuickHashes(t *testing.T) {
	l := mixed(t, false)
	s := random(rand.New(rand.NewPCG(4, 4)), l, 100)
	for _, sealed := range []*Sealed{SealQuickly(s), Seal(s)} {
		var b bytes.Buffer
		if _, err := sealed.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		h, err := ReadQuickHead(&b, l, 100)
		if err != nil || h.Step != s.Step || h.SHA256 != sealed.SHA256 {
			t.Fatalf("%v, head %+v", err, h)
		}
		if block := make([]byte, l.Size); h.ReadBlock(bytes.NewReader(s.Image), 0, block) != nil ||
			!bytes.Equal(block, s.Image) {
			t.Error("another block came back")
		}
		for i := range 8 * len(s.Image) {
			image := slices.Clone(s.Image)
			image[i/8] ^= 1 << (i % 8)
			if err := h.ReadBlock(bytes.NewReader(image), 0, make([]byte, l.Size)); !errors.Is(err, ErrDamaged) {
				t.Fatalf("bit %d flipped: %v", i, err)
			}
		}
	}
	var b bytes.Buffer
	_, _ = SealQuickly(s).WriteTo(&b)
	if _, err := Read(bytes.NewReader(b.Bytes()), l, 100, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("Read: %v", err)
	}
	if _, err := ReadHead(bytes.NewReader(b.Bytes()), l, 100, nil); !errors.Is(err, ErrDamaged) {
		t.Errorf("ReadHead: %v", err)
	}
	if _, wrong := Verify(bytes.NewReader(b.Bytes()), l); len(wrong) == 0 {
		t.Error("Verify takes it")
	}
}

func TestDamagedBlocksAreNamed(t *testing.T) {
	l := layout(t, tensor("first", evenweave.Uint8, evenweave.Trained, BlockSize+8),
		tensor("second", evenweave.Uint8, evenweave.Kept, 2*BlockSize))
	s := random(rand.New(rand.NewPCG(3, 3)), l, 10)
	b := encode(t, s)
	head := int(l.HeadSize(10))
	for at, want := range map[int]string{0: "block 1 of 4, bytes 0 to 1048575 of the tensors, from first on",
		BlockSize:        "block 2 of 4",
		2 * BlockSize:    "block 3 of 4, bytes 2097152 to 3145727 of the tensors, from second on",
		len(s.Image) - 1: "block 4 of 4"} {
		b[head+at] ^= 4
		if _, err := Read(bytes.NewReader(b), l, 10, nil); !errors.Is(err, ErrDamaged) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("byte %d: %v, want %q", at, err, want)
		}
		b[head+at] ^= 4
	}
}

// What a header claims is compared with what is expected before anything is allocated for it.
func TestOtherLayoutsAreRefused(t *testing.T) {
	l := mixed(t, false)
	b := encode(t, random(rand.New(rand.NewPCG(4, 4)), l, 100))
	for _, samples := range []int{0, 99, 101, 200, -2, 1 << 40} {
		if _, err := Read(bytes.NewReader(b), l, samples, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("100 samples taken for %d: %v", samples, err)
		}
	}
	for _, other := range []*Layout{mixed(t, true), layout(t, tensor("w", evenweave.Float32, evenweave.Trained, 5))} {
		if _, err := Read(bytes.NewReader(b), other, 100, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("taken for another model's: %v", err)
		}
	}
	old := append([]byte(magic), 1, 0, 0, 0, 0, 0, 0, 0)
	if _, err := Read(bytes.NewReader(old), l, 100, nil); err == nil || !strings.Contains(err.Error(), "version 1") ||
		!strings.Contains(err.Error(), "version 2") {
		t.Errorf("the version before: %v", err)
	}
}

// The encoding and its hashes are a format: states written by an older program must stay readable.
func TestFormatIsPinned(t *testing.T) {
	s := New(layout(t, tensor("w", evenweave.Float32, evenweave.Trained, 3)), 70)
	s.Step = 3
	copy(s.Image, "\x00\x00\x80\x3f\x00\x00\x00\xbf")
	if got := fmt.Sprintf("%s %x", s.Fingerprint(), Seal(s).SHA256); got != pinned {
		t.Errorf("hashes %s, expected %s", got, pinned)
	}
	if b := encode(t, s); !strings.HasPrefix(string(b), magic+"\x02\x00\x00\x00\x00\x00\x00\x00\x03") ||
		!strings.HasSuffix(string(b), string(s.Image)) {
		t.Errorf("encoding %x", b)
	}
}

const pinned = "db908a56e2c951b4752aa4a67954c6df 546cc877990177041e0fc521225933db1be9198ccb901c7fd1e134b376b0e386"

// allocated is how many bytes f takes, and gives back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A gigabyte that is announced and does not come takes no memory.
func TestMemoryIsTakenAsDataArrives(t *testing.T) {
	l := layout(t, tensor("w", evenweave.Uint8, evenweave.Trained, 1<<30))
	head := binary.LittleEndian.AppendUint64([]byte(magic), full)
	for _, field := range []int64{7, int64(schedule.LedgerSize(100)), blocks(l.Size), l.Size} {
		head = binary.LittleEndian.AppendUint64(head, uint64(field))
	}
	head = append(head, make([]byte, l.HeadSize(100)-headerSize)...)
	binary.LittleEndian.PutUint64(head[headerSize:], 100) // samples of the ledger
	for _, arrives := range []int{len(head), len(head) + 3*BlockSize/2} {
		var err error
		taken := allocated(func() {
			_, err = Read(bytes.NewReader(append(head, make([]byte, arrives-len(head))...)),
				l, 100, nil)
		})
		if !errors.Is(err, ErrDamaged) || taken > 4*uint64(arrives)+4*BlockSize {
			t.Errorf("%d bytes of %d arrived: %d were allocated, %v", arrives, l.HeadSize(100)+l.Size, taken, err)
		}
	}
}

// FuzzRead: whatever the bytes, no more memory is taken than a few times what has arrived, and what is accepted is the
// encoding of what it says.
func FuzzRead(f *testing.F) {
	l := mixed(f, false)
	b := encode(f, random(rand.New(rand.NewPCG(5, 5)), l, 10))
	f.Add(b)
	f.Add(b[:50])
	huge := bytes.Clone(b)
	copy(huge[24:], bytes.Repeat([]byte{0x3f}, 3)) // a long ledger
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		var s *Sealed
		var err error
		if taken := allocated(func() { s, err = Read(bytes.NewReader(b), l, Any, nil) }); taken > 4*uint64(
			len(b))+4*chunk {
			t.Fatalf("%d bytes were allocated for %d", taken, len(b))
		}
		if err == nil && !bytes.HasPrefix(b, encode(t, s.State)) {
			t.Fatal("another encoding of the same state")
		}
	})
}

// A model in memory that names an impossible shape is made, so that the check of its layout can say which.
func TestAnImpossibleShapeInMemoryIsNamed(t *testing.T) {
	for _, shape := range [][]int{{-1}, {0}, {2, -3}, {1 << 40}, {1 << 20, 1 << 20}, {1 << 32, 1 << 32}} {
		m := evenweave.NewMemory(evenweave.Tensor{Name: "weights", Shape: shape, Role: evenweave.Trained})
		_, err := OfJob(m.Tensors())
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("shape %v", shape)) {
			t.Errorf("shape %v: %v", shape, err)
		}
	}
}
