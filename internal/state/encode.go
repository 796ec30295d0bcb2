package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"unsafe"

	"github.com/zeebo/xxh3"

	"evenweave/internal/schedule"
)

const (
	magic       = "EVWSTATE"
	version     = 1
	headerSize  = 40
	trailerSize = 16
	block       = 1 << 16 // bytes handled at a time, and at most allocated ahead of what has arrived
)

// WriteTo writes the encoding. Nobody may change s meanwhile.
func (s *State) WriteTo(w io.Writer) (int64, error) {
	h := xxh3.New()
	n, err := s.writeBody(io.MultiWriter(w, h))
	if err != nil {
		return n, fmt.Errorf("state: writing step %d: %w", s.Step, err)
	}
	f := sum(h)
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(f.Lo))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(f.Hi))
	m, err := w.Write(trailer)
	if err != nil {
		err = fmt.Errorf("state: writing step %d: %w", s.Step, err)
	}
	return n + int64(m), err
}

// writeBody writes the encoding up to the trailer.
func (s *State) writeBody(w io.Writer) (n int64, err error) {
	ledger := schedule.LedgerSize(s.Ledger.Samples())
	b := make([]byte, 0, headerSize+ledger)
	b = append(b, magic...)
	for _, field := range []uint64{version, uint64(s.Step), uint64(ledger), uint64(len(s.Values))} {
		b = binary.LittleEndian.AppendUint64(b, field)
	}
	if b, err = s.Ledger.AppendBinary(b); err != nil {
		return 0, err
	}
	m, err := w.Write(b)
	n = int64(m)
	for values := s.Values; err == nil && len(values) > 0; {
		now := values[:min(len(values), block/4)]
		if b, err = littleEndian(now); err != nil {
			break
		}
		m, err = w.Write(b)
		n += int64(m)
		values = values[len(now):]
	}
	return n, err
}

// littleEndian returns the encoding of values: their own memory where this machine stores numbers alike, since a copy
// would take longer than the hash.
func littleEndian(values []float32) ([]byte, error) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) == 1 {
		return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values)), nil
	}
	return binary.Append(nil, binary.LittleEndian, values)
}

// ErrDamaged is wrapped by the errors of Read that tell of bytes which are no whole encoding.
var ErrDamaged = errors.New("damaged or truncated state")

// Read reads one encoding of at most limit bytes (see Size) and nothing after it. Memory is allocated as data arrives,
// whatever lengths the header claims. An error wraps ErrDamaged if the bytes are not a whole state, or else what r
// returned.
func Read(r io.Reader, limit int64) (*State, error) {
	h := xxh3.New()
	body := io.TeeReader(r, h)
	header := make([]byte, headerSize)
	if err := readFull(body, header, "header"); err != nil {
		return nil, err
	}
	field := func(i int) uint64 { return binary.LittleEndian.Uint64(header[8*i:]) }
	if got := string(header[:8]); got != magic {
		return nil, fmt.Errorf("state: %w: starts with %q, expected %q", ErrDamaged, got, magic)
	}
	if v := field(1); v != version {
		return nil, fmt.Errorf("state: format version %d: this program reads version %d", v, version)
	}
	step, ledgerSize, count := field(2), field(3), field(4)
	rest := uint64(max(limit-headerSize-trailerSize, 0))
	if step > math.MaxInt64 || ledgerSize > rest || count > (rest-ledgerSize)/4 {
		return nil, fmt.Errorf("state: %w: step %d with %d bytes of ledger and %d values: more than the %d bytes expected in all",
			ErrDamaged, step, ledgerSize, count, limit)
	}
	s := &State{Step: int64(step)}
	if err := s.readLedger(body, int(ledgerSize)); err != nil {
		return nil, err
	}
	if err := s.readValues(body, int(count)); err != nil {
		return nil, err
	}
	trailer := make([]byte, trailerSize)
	if err := readFull(r, trailer, "checksum"); err != nil {
		return nil, err
	}
	found := sum(h)
	expected := Fingerprint{
		Hi: int64(binary.LittleEndian.Uint64(trailer[8:])),
		Lo: int64(binary.LittleEndian.Uint64(trailer)),
	}
	if found != expected {
		return nil, fmt.Errorf("state: %w: step %d has fingerprint %v, expected %v", ErrDamaged, step, found, expected)
	}
	return s, nil
}

// ReadFor is Read for a model's number of values and a spec's of samples: any other state is refused.
func ReadFor(r io.Reader, values, samples int) (*State, error) {
	s, err := Read(r, Size(values, samples))
	if err != nil {
		return nil, err
	}
	if len(s.Values) != values || s.Ledger.Samples() != samples {
		return nil, fmt.Errorf("state: %w: step %d has %d values, trained on %d samples: expected %d values and %d samples",
			ErrDamaged, s.Step, len(s.Values), s.Ledger.Samples(), values, samples)
	}
	return s, nil
}

func (s *State) readLedger(r io.Reader, size int) error {
	var b []byte
	for len(b) < size {
		n := min(size-len(b), block)
		b = append(b, make([]byte, n)...)
		if err := readFull(r, b[len(b)-n:], "ledger"); err != nil {
			return err
		}
	}
	var err error
	if s.Ledger, err = schedule.DecodeLedger(b); err != nil {
		return fmt.Errorf("state: %w: %w", ErrDamaged, err)
	}
	return nil
}

func (s *State) readValues(r io.Reader, count int) error {
	s.Values = make([]float32, 0, min(count, block/4))
	b := make([]byte, min(4*count, block))
	for len(s.Values) < count {
		b = b[:min(4*(count-len(s.Values)), block)]
		if err := readFull(r, b, "values"); err != nil {
			return err
		}
		for i := 0; i < len(b); i += 4 {
			s.Values = append(s.Values, math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
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
