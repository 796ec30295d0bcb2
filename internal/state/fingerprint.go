package state

import (
	"crypto/sha256"
	"fmt"
	"strconv"

	"github.com/zeebo/xxh3"
)

// Fingerprint is a 128-bit hash of a state: equal states, down to the bits of every value, have equal fingerprints. Two
// int64 so that it fits into slots of an all-reduce buffer. It guards against faults, not against forgery.
type Fingerprint struct{ Hi, Lo int64 }

// Fingerprint hashes step, ledger and the bits of all values: the XXH3-128 of the encoding before its trailer.
func (s *State) Fingerprint() Fingerprint {
	h := xxh3.New()
	_, _ = s.writeBody(h) // a hash cannot fail
	return sum(h)
}

func sum(h *xxh3.Hasher) Fingerprint {
	u := h.Sum128()
	return Fingerprint{int64(u.Hi), int64(u.Lo)}
}

// SHA256 is the hash of the whole encoding, as a receiver of it computes: it guards against forgery too.
func (s *State) SHA256() (sum [sha256.Size]byte) {
	h := sha256.New()
	_, _ = s.WriteTo(h) // a hash cannot fail
	h.Sum(sum[:0])
	return sum
}

// String returns 32 hexadecimal digits, the high word first.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x%016x", uint64(f.Hi), uint64(f.Lo)) }

// IsZero reports whether f is the zero value, which stands for no state.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// ParseFingerprint reads what String wrote.
func ParseFingerprint(s string) (Fingerprint, error) {
	if len(s) == 32 {
		hi, err1 := strconv.ParseUint(s[:16], 16, 64)
		lo, err2 := strconv.ParseUint(s[16:], 16, 64)
		if err1 == nil && err2 == nil {
			return Fingerprint{int64(hi), int64(lo)}, nil
		}
	}
	return Fingerprint{}, fmt.Errorf("state: fingerprint %q: expected 32 hexadecimal digits", s)
}
