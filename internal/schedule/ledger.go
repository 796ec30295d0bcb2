package schedule

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"

	"evenweave"
)

// Ledger records which samples the committed steps used: the number of completed epochs and a bitmap of the current
// one. Each sample must be used exactly once in an epoch; a Ledger refuses everything else. It is not safe for
// concurrent use.
type Ledger struct {
	samples int
	epochs  int64
	used    int
	bitmap  []uint64 // bit i%64 of word i/64: sample i was used in epoch `epochs`
}

// NewLedger returns an empty ledger for a training set of samples >= 0.
func NewLedger(samples int) *Ledger {
	return &Ledger{samples: samples, bitmap: make([]uint64, words(samples))}
}

func words(samples int) int { return (samples + 63) / 64 }

// Commit records the samples of one committed step of an epoch; padding is skipped. When the last sample of the epoch
// is recorded, the epoch is complete and the next one opens. It returns an error that names samples, and records
// nothing, if one is out of range or was used before in this epoch, or if the epoch is not the current one.
func (l *Ledger) Commit(epoch int64, samples []int32) error {
	if epoch != l.epochs {
		return fmt.Errorf("schedule: ledger: samples of epoch %d committed while epoch %d is open with %d of %d "+
			"samples used%s", epoch, l.epochs, l.used, l.samples, l.missing())
	}
	for i, s := range samples {
		var err error
		switch {
		case s == evenweave.Padding:
			continue
		case s < 0 || int(s) >= l.samples:
			err = fmt.Errorf("schedule: ledger: sample %d committed in epoch %d: expected 0 to %d",
				s, epoch, l.samples-1)
		case l.bitmap[s/64]>>(s%64)&1 == 1:
			err = fmt.Errorf("schedule: ledger: sample %d used twice in epoch %d", s, epoch)
		}
		if err != nil {
			l.clear(samples[:i])
			return err
		}
		l.bitmap[s/64] |= 1 << (s % 64)
		l.used++
	}
	if l.used == l.samples {
		l.epochs++
		l.used = 0
		clear(l.bitmap)
	}
	return nil
}

func (l *Ledger) clear(samples []int32) {
	for _, s := range samples {
		if s != evenweave.Padding {
			l.bitmap[s/64] &^= 1 << (s % 64)
			l.used--
		}
	}
}

// missing names the first few samples that the open epoch has not used.
func (l *Ledger) missing() string {
	const most = 5
	var names []string
	for s := 0; s < l.samples && len(names) < most; s++ {
		if l.bitmap[s/64]>>(s%64)&1 == 0 {
			names = append(names, fmt.Sprint(s))
		}
	}
	rest := ""
	if l.samples-l.used > most {
		rest = ", ..."
	}
	return fmt.Sprintf("; missing: %s%s", strings.Join(names, ", "), rest)
}

// Samples returns the size of the training set.
func (l *Ledger) Samples() int { return l.samples }

// Epochs returns how many epochs are complete; it is also the index of the current one.
func (l *Ledger) Epochs() int64 { return l.epochs }

// Used returns how many samples of the current epoch were used.
func (l *Ledger) Used() int { return l.used }

// Clone returns a copy that shares nothing with l.
func (l *Ledger) Clone() *Ledger {
	c := *l
	c.bitmap = slices.Clone(l.bitmap)
	return &c
}

const ledgerHeader = 16

// LedgerSize returns the length in bytes of an encoded ledger for a training set of that many samples.
func LedgerSize(samples int) int { return ledgerHeader + 8*words(samples) }

// AppendBinary appends the encoding: samples, epochs, then the words of the bitmap, each a little-endian uint64. Equal
// ledgers have equal encodings. The error is always nil (it makes Ledger an encoding.BinaryAppender).
func (l *Ledger) AppendBinary(dst []byte) ([]byte, error) {
	dst = slices.Grow(dst, LedgerSize(l.samples))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(l.samples))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(l.epochs))
	for _, w := range l.bitmap {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	return dst, nil
}

// DecodeLedger reads what AppendBinary wrote; src must hold nothing else. It keeps no reference to src.
func DecodeLedger(src []byte) (*Ledger, error) {
	if len(src) < ledgerHeader {
		return nil, fmt.Errorf("schedule: ledger: %d bytes: expected at least %d", len(src), ledgerHeader)
	}
	samples, epochs := binary.LittleEndian.Uint64(src), binary.LittleEndian.Uint64(src[8:])
	if samples > math.MaxInt32 || epochs > math.MaxInt64 || len(src) != LedgerSize(int(samples)) {
		return nil, fmt.Errorf("schedule: ledger: %d bytes for %d samples after %d epochs: the lengths do not agree",
			len(src), samples, epochs)
	}
	l := NewLedger(int(samples))
	l.epochs = int64(epochs)
	for i := range l.bitmap {
		l.bitmap[i] = binary.LittleEndian.Uint64(src[ledgerHeader+8*i:])
		l.used += bits.OnesCount64(l.bitmap[i])
	}
	if rest := samples % 64; rest != 0 && l.bitmap[len(l.bitmap)-1]>>rest != 0 {
		return nil, fmt.Errorf("schedule: ledger: a sample beyond the last, %d, is marked as used", int64(samples)-1)
	}
	if l.used > 0 && l.used == l.samples {
		return nil, fmt.Errorf("schedule: ledger: epoch %d is full but not closed", epochs)
	}
	return l, nil
}
