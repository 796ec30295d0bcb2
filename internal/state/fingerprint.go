package state

import (
	"fmt"

	"github.com/zeebo/xxh3"

	"evenweave"
	"evenweave/internal/schedule"
)

// Fingerprint is a 128-bit hash of a state: equal states, down to every bit, have equal fingerprints. Two int64 so that
// it fits into slots of an all-reduce buffer. It guards against faults, not against forgery.
//
// It is the sum, word by word and without carry between them, of the fingerprints of its parts: of each block of 64 KiB
// of each tensor, and of step and ledger. So threads and devices may hash parts in any order.
type Fingerprint struct{ Hi, Lo int64 }

// FingerprintBlock is the number of bytes of a tensor that are hashed together; a tensor's last block may be shorter.
const FingerprintBlock = 64 << 10

// headPart stands for a tensor's index in the seed of step and ledger.
const headPart = 1<<64 - 1

// Block is the fingerprint of block index of a tensor, whose bytes are p.
func Block(tensor int, index int64, p []byte) Fingerprint {
	return part(uint64(tensor), uint64(index), p)
}

func part(tensor, index uint64, p []byte) Fingerprint {
	u := xxh3.Hash128Seed(p, evenweave.Key(tensor, 0, index))
	return Fingerprint{int64(u.Hi), int64(u.Lo)}
}

// Add is the fingerprint of two parts together.
func (f Fingerprint) Add(g Fingerprint) Fingerprint { return Fingerprint{f.Hi + g.Hi, f.Lo + g.Lo} }

// Fingerprint hashes step, ledger and every bit of the tensors that from holds. scratch is memory of FingerprintBlock
// bytes to read into; nil: it allocates them.
func (l *Layout) Fingerprint(step int64, ledger *schedule.Ledger, from Reader, scratch []byte) (f Fingerprint,
	err error) {
	head, err := FingerprintHead(step, ledger)
	if err != nil {
		return f, err
	}
	tensors, err := l.FingerprintOf(0, 1, from, scratch)
	if err != nil {
		return f, err
	}
	return head.Add(tensors), nil
}

// FingerprintOf is the i-th of n summands of the tensors' part of a fingerprint, of about equal size: calls for the
// others may run at the same time, with a scratch of their own.
func (l *Layout) FingerprintOf(i, n int, from Reader, scratch []byte) (f Fingerprint, err error) {
	if len(scratch) < FingerprintBlock {
		scratch = make([]byte, FingerprintBlock)
	}
	number := 0 // of a block, over all tensors
	for k, t := range l.Tensors {
		size := t.Bytes()
		for index, at := int64(0), int64(0); at < size; index, at = index+1, at+FingerprintBlock {
			if number++; number%n != i {
				continue
			}
			p := scratch[:min(FingerprintBlock, size-at)]
			if err := from.Read(k, at, p); err != nil {
				return Fingerprint{}, fmt.Errorf("state: reading tensor %s: %w", t.Name, err)
			}
			f = f.Add(Block(k, index, p))
		}
	}
	return f, nil
}

// FingerprintHead is the summand of step and ledger.
func FingerprintHead(step int64, ledger *schedule.Ledger) (Fingerprint, error) {
	head, err := ledger.AppendBinary(nil)
	return part(headPart, uint64(step), head), err
}

// String returns 32 hexadecimal digits, the high word first.
func (f Fingerprint) String() string { return fmt.Sprintf("%016x%016x", uint64(f.Hi), uint64(f.Lo)) }
