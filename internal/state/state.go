// Package state holds all that a training run needs to go on, its one encoding, and its fingerprint.
//
// The tensors of a state lie in one flat image (see Layout), which the trainer reads from and writes to the model: the
// live state itself may be in a device's memory. The encoding is the same on the wire (a member that catches up) and on
// disk (the payload of a checkpoint). All integers are little-endian:
//
//	offset     bytes
//	0          8    magic "EVWSTATE"
//	8          8    format version, 2
//	16         8    step
//	24         8    L, length of the ledger in bytes
//	32         8    B, number of blocks: those of 1 MiB that the image has, the last may be shorter
//	40         8    I, length of the image in bytes
//	48         L    ledger (see schedule.Ledger.AppendBinary)
//	48+L       32B  SHA-256 of each block of the image
//	48+L+32B   I    image
//
// Everything before the image is the head. The SHA-256 of a state is that of its head: a reader that knows it can
// verify the head, and with its table each block as it arrives, from any member.
package state

import (
	"slices"

	"evenweave/internal/schedule"
)

// State is a copy of a job's state: tensors, step, data position and ledger. It is not safe for concurrent use while it
// changes.
type State struct {
	Step   int64            // committed updates; also the index of the next one
	Ledger *schedule.Ledger // the samples that those updates used
	Layout *Layout
	Image  []byte // Layout.Size bytes
}

// New returns a state of step 0 of which all tensors are zeros.
func New(layout *Layout, samples int) *State {
	return &State{Ledger: schedule.NewLedger(samples), Layout: layout, Image: make([]byte, layout.Size)}
}

// Clone returns a copy that shares nothing with s but the layout.
func (s *State) Clone() *State {
	return &State{Step: s.Step, Ledger: s.Ledger.Clone(), Layout: s.Layout, Image: slices.Clone(s.Image)}
}

// Tensor is the encoding of a tensor, within the image.
func (s *State) Tensor(i int) []byte {
	at := s.Layout.Offsets[i]
	return s.Image[at : at+s.Layout.Tensors[i].Bytes()]
}

// Read implements Reader.
func (s *State) Read(tensor int, offset int64, p []byte) error {
	copy(p, s.Tensor(tensor)[offset:])
	return nil
}

// Write implements Writer.
func (s *State) Write(tensor int, offset int64, p []byte) error {
	copy(s.Tensor(tensor)[offset:], p)
	return nil
}

// Fingerprint hashes the state: see Layout.Fingerprint.
func (s *State) Fingerprint() Fingerprint {
	f, _ := s.Layout.Fingerprint(s.Step, s.Ledger, s, nil) // a copy in memory can be read
	return f
}
