package state

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"evenweave/internal/schedule"
)

const noLimit = math.MaxInt64

func random(r *rand.Rand, values, samples int) *State {
	s := &State{Step: r.Int64(), Ledger: schedule.NewLedger(samples), Values: make([]float32, values)}
	for i := range s.Values {
		s.Values[i] = math.Float32frombits(r.Uint32()) // NaN payloads and signed zeros too
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
	n, err := s.WriteTo(&b)
	if err != nil || n != int64(b.Len()) || n != Size(len(s.Values), s.Ledger.Samples()) {
		t.Fatalf("wrote %d, counted %d, expected %d: %v", b.Len(), n, Size(len(s.Values), s.Ledger.Samples()), err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, values := range []int{0, 1, 3, block/4 - 1, block / 4, block/4 + 1, 100000} {
		s := random(r, values, r.IntN(1000))
		b := encode(t, s)
		// Another one follows: Read must leave it alone. A byte at a time: streams may be split anywhere.
		stream := bytes.NewReader(append(b, "rest"...))
		got, err := Read(iotest.HalfReader(stream), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(stream); string(rest) != "rest" {
			t.Errorf("Read consumed beyond the end: %q is left", rest)
		}
		if got.Step != s.Step || got.Fingerprint() != s.Fingerprint() || !bytes.Equal(encode(t, got), b) {
			t.Errorf("%d values: another state came back", values)
		}
		if _, err := Read(bytes.NewReader(b), int64(len(b))-1); !errors.Is(err, ErrDamaged) {
			t.Errorf("over the limit: %v", err)
		}
		if c := s.Clone(); c.Fingerprint() != s.Fingerprint() {
			t.Error("the clone differs")
		}
	}
}

// Any single flipped bit, anywhere, and any truncation is an error.
func TestDamageIsFound(t *testing.T) {
	b := encode(t, random(rand.New(rand.NewPCG(2, 2)), 50, 100))
	for i := range 8 * len(b) {
		b[i/8] ^= 1 << (i % 8)
		if _, err := Read(bytes.NewReader(b), noLimit); err == nil {
			t.Fatalf("bit %d flipped: no error", i)
		}
		b[i/8] ^= 1 << (i % 8)
	}
	for n := range b {
		if _, err := Read(bytes.NewReader(b[:n]), noLimit); !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	broken := errors.New("connection lost")
	if _, err := Read(io.MultiReader(bytes.NewReader(b[:60]), iotest.ErrReader(broken)), noLimit); !errors.Is(err, broken) || errors.Is(err, ErrDamaged) {
		t.Errorf("a reader's error: %v", err)
	}
}

// The fingerprint sees every bit of the values (an optimizer's moments too), the step and the ledger.
func TestFingerprintSeesEverything(t *testing.T) {
	s := random(rand.New(rand.NewPCG(3, 3)), 200, 130)
	seen := map[Fingerprint]bool{s.Fingerprint(): true}
	add := func(what string) {
		t.Helper()
		f := s.Fingerprint()
		if seen[f] || f.IsZero() {
			t.Fatalf("%s: the fingerprint is the same", what)
		}
		seen[f] = true
	}
	for i := range s.Values {
		for bit := range 32 {
			s.Values[i] = math.Float32frombits(math.Float32bits(s.Values[i]) ^ 1<<bit)
			add("a flipped bit")
			s.Values[i] = math.Float32frombits(math.Float32bits(s.Values[i]) ^ 1<<bit)
		}
	}
	s.Step++
	add("another step")
	if err := s.Ledger.Commit(0, []int32{1}); err != nil {
		t.Fatal(err)
	}
	add("another sample used")
	s.Values = append(s.Values, 0)
	add("one value more")
}

// The encoding and its hash are a format: states written by an older program must stay readable.
func TestFormatIsPinned(t *testing.T) {
	s := &State{Step: 3, Ledger: schedule.NewLedger(70), Values: []float32{1, -0.5}}
	if got := s.Fingerprint().String(); got != pinned {
		t.Errorf("fingerprint %s, expected %s", got, pinned)
	}
	if b := encode(t, s); !strings.HasPrefix(string(b), magic+"\x01\x00\x00\x00\x00\x00\x00\x00\x03") {
		t.Errorf("encoding %x", b)
	}
}

const pinned = "1090f533ba8a2638bd44951574b2ccec"

func TestParseFingerprint(t *testing.T) {
	for _, f := range []Fingerprint{{}, {1, 2}, {-1, math.MinInt64}} {
		if got, err := ParseFingerprint(f.String()); err != nil || got != f {
			t.Errorf("%v came back as %v, %v", f, got, err)
		}
	}
	for _, s := range []string{"", "12", strings.Repeat("g", 32), strings.Repeat("0", 33), "+" + strings.Repeat("0", 31)} {
		if _, err := ParseFingerprint(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}

func FuzzRead(f *testing.F) {
	b := encode(f, random(rand.New(rand.NewPCG(4, 4)), 5, 10))
	f.Add(b)
	f.Add(b[:50])
	huge := bytes.Clone(b)
	copy(huge[24:], bytes.Repeat([]byte{0x7f}, 16))
	f.Add(huge)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Read(bytes.NewReader(b), noLimit)
		if err == nil && !bytes.HasPrefix(b, encode(t, s)) {
			t.Fatal("another encoding of the same state")
		}
	})
}

// The built-in CNN: 332,958 values.
func BenchmarkFingerprint(b *testing.B) {
	s := random(rand.New(rand.NewPCG(5, 5)), 3*110986, 60000)
	b.SetBytes(4 * int64(len(s.Values)))
	b.ReportAllocs()
	for b.Loop() {
		s.Fingerprint()
	}
}

func TestReadForRefusesOtherLayouts(t *testing.T) {
	var b bytes.Buffer
	s := State{Step: 3, Ledger: schedule.NewLedger(100), Values: []float32{1, 2}}
	if _, err := s.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFor(bytes.NewReader(b.Bytes()), 2, 100); err != nil {
		t.Fatal(err)
	}
	for _, other := range [][2]int{{1, 100}, {3, 100}, {2, 99}, {2, 101}, {2, 200}, {0, 0}, {-1, 100}, {2, -1}, {2, math.MaxInt}, {math.MaxInt, 100}} {
		if got, err := ReadFor(bytes.NewReader(b.Bytes()), other[0], other[1]); err == nil {
			t.Errorf("%d values of %d samples were taken for %v", len(got.Values), got.Ledger.Samples(), other)
		}
	}
}
