package allreduce

import (
	"context"
	"fmt"
)

// Link is what both ends of a neighbour's stream have in common. A link keeps frames whole and in order; it knows nothing of deadlines, because the ring breaks it when one has passed.
type Link interface {
	// Wait blocks until the stream is over: nil when it ended in good order, otherwise why it broke.
	// It returns at once when the neighbour's process dies or gives up, also while nobody sends or receives.
	Wait() error
	// Abort breaks the stream: calls that block return, and the neighbour learns it at once. Any goroutine may call it, more than once; the first cause counts, and is told to the neighbour where the stream can carry it.
	Abort(cause error)
	// Close ends the stream in good order. A sender's Close returns when the neighbour has acknowledged every frame, or with an error when ctx ends first; a receiver's releases what it holds.
	Close(ctx context.Context) error
}

// Sender is the end of a stream that leads to the right neighbour. One goroutine at a time calls Buffer and Send.
type Sender interface {
	Link
	// Buffer returns the n bytes of the next frame, with any content. They belong to the caller until Send.
	Buffer(n int) []byte
	// Send gives the frame of the last Buffer to the link, which owns those bytes from then on. It blocks only while the stream has no room.
	Send() error
}

// Receiver is the end of a stream that comes from the left neighbour. One goroutine at a time calls Recv.
type Receiver interface {
	Link
	// Recv waits for the next frame and returns its bytes in pieces that may be cut anywhere. The caller may change the slice but not the bytes; both are valid until the next Recv.
	// After the neighbour closed in good order, and its last frame was received, it returns io.EOF.
	Recv() (pieces [][]byte, err error)
}

// PeerAbort is the error of a link whose neighbour broke it on purpose and said why. The fault then lies beyond the neighbour, or in what it says.
type PeerAbort struct{ Cause string }

// Error returns what the neighbour said.
func (e *PeerAbort) Error() string { return fmt.Sprintf("the neighbour gave up: %s", e.Cause) }
