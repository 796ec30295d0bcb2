package allreduce

import (
	"context"
	"fmt"
)

// Link is what both ends of a neighbour's stream have in common. A link keeps frames whole and in order. It has no
// deadlines: the ring breaks it when one has passed.
type Link interface {
	// Wait blocks until the stream is over: nil when it ended in good order, otherwise why it broke.
	// It returns at once when the neighbour's process dies or gives up, also while no frame is sent or received.
	Wait() error
	// Abort breaks the stream: blocked calls return, and the neighbour learns it at once. Any goroutine may call it,
	// more than once. The first cause counts; the neighbour receives it where the stream can carry it.
	Abort(cause error)
	// Close ends the stream in good order. A sender's Close returns when the neighbour has acknowledged every frame, or
	// with an error when ctx ends first; a receiver's releases what it holds.
	Close(ctx context.Context) error
}

// Sender is the end of a stream that leads to the right neighbour. One goroutine at a time calls Buffer and Send.
type Sender interface {
	Link
	// Buffer returns n bytes for the next frame, with any content. They belong to the caller until Send.
	Buffer(n int) []byte
	// Send passes the frame of the last Buffer to the link, which owns those bytes from then on. It blocks only while
	// the stream has no room.
	Send() error
}

// Receiver is the end of a stream that comes from the left neighbour. One goroutine at a time calls Recv.
type Receiver interface {
	Link
	// Recv waits for the next frame and returns its bytes in pieces that may be cut anywhere. The caller may change the
	// slice but not the bytes; both are valid until the next Recv. It returns io.EOF after the last frame of a
	// neighbour that closed in good order.
	Recv() (pieces [][]byte, err error)
}

// PeerAbort is the error of a link whose neighbour broke it on purpose and sent the cause. The fault is what the cause
// says, not the link.
type PeerAbort struct{ Cause string }

// Error returns the neighbour's cause.
func (e *PeerAbort) Error() string { return fmt.Sprintf("the neighbour gave up: %s", e.Cause) }
