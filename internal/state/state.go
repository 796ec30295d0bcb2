// Package state holds all that a training run needs to go on, its one encoding, and its fingerprint.
//
// The encoding is the same on the wire (a peer that catches up) and on disk (the payload of a checkpoint). Everything is
// little-endian:
//
//	offset  bytes
//	0       8    magic "EVWSTATE"
//	8       8    format version, 1
//	16      8    step
//	24      8    L, length of the ledger in bytes
//	32      8    P, number of values
//	40      L    ledger (see schedule.Ledger.AppendBinary)
//	40+L    4P   values, float32
//	40+L+4P 16   fingerprint: XXH3-128 of all bytes before; low word, then high word
//
// So the fingerprint of a state is the checksum of its encoding, and reading a state verifies both at once.
package state

import (
	"slices"

	"evenweave/internal/schedule"
)

// State is parameters, optimizer, step, data position and ledger. It is not safe for concurrent use while it changes.
type State struct {
	Step   int64            // committed updates; also the index of the next one
	Ledger *schedule.Ledger // the samples that those updates used
	Values []float32        // parameters, then optimizer, as the model lays them out
}

// Clone returns a copy that shares nothing with s.
func (s *State) Clone() *State {
	return &State{Step: s.Step, Ledger: s.Ledger.Clone(), Values: slices.Clone(s.Values)}
}

// Size returns the length in bytes of the encoding of a state with that many values, trained on that many samples.
func Size(values, samples int) int64 {
	return headerSize + int64(schedule.LedgerSize(samples)) + 4*int64(values) + trailerSize
}
