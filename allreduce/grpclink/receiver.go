package grpclink

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"evenweave/allreduce"
)

// receiver is the handler's end of a stream.
type receiver struct {
	stream   grpc.ServerStream
	hello    Hello
	accepted chan struct{} // closed by Accept
	refused  chan struct{} // closed when the stream may no longer wait
	refusal  error         // why

	frames  chan mem.BufferSlice // from the pump to Recv; closed at the end of the stream
	over    chan struct{}        // closed when the pump has ended
	err     error                // why; nil in good order
	aborted chan struct{}        // closed by Abort
	once    sync.Once
	cause   error // of the abort; nil when closed in good order

	last   mem.BufferSlice
	pieces [][]byte
}

// queue is how many frames wait for Recv outside gRPC's own buffers.
const queue = 16

func newReceiver(stream grpc.ServerStream) *receiver {
	return &receiver{stream: stream, accepted: make(chan struct{}), refused: make(chan struct{}),
		frames: make(chan mem.BufferSlice, queue), over: make(chan struct{}), aborted: make(chan struct{})}
}

// serve runs the pump until the stream ends or this end aborts it. Its return value is the status that the sender gets.
func (r *receiver) serve() error {
	go r.pump() // When serve returns first, gRPC ends the stream, and with it the pump.
	select {
	case <-r.over:
	case <-r.aborted:
		if r.cause != nil {
			return status.Error(codes.Aborted, shorten(r.cause.Error()))
		}
	}
	return nil
}

// shorten cuts a cause to what HTTP/2 headers carry.
func shorten(s string) string { return s[:min(len(s), 2000)] }

// pump takes frames from gRPC, so that the end of the stream is seen and acknowledged even while no Recv waits.
func (r *receiver) pump() {
	defer close(r.over)
	defer close(r.frames)
	for {
		var in incoming
		if err := r.stream.RecvMsg(&in); err != nil {
			if err != io.EOF {
				r.err = fmt.Errorf("its stream ended, as when its process dies or gives up: %w", err)
			}
			return
		}
		if n := in.pieces.Len(); n > maxFrame {
			in.pieces.Free()
			r.err = fmt.Errorf("a frame of %d bytes, expected at most %d", n, maxFrame)
			r.end(r.err)
			return
		}
		if cause, ok := saidGoodbye(in.pieces); ok {
			in.pieces.Free()
			r.err = &allreduce.PeerAbort{Cause: cause}
			r.end(r.err)
			return
		}
		select {
		case r.frames <- in.pieces:
		case <-r.aborted:
			in.pieces.Free()
			return
		}
	}
}

// saidGoodbye returns why the sender gives up, if the message is its goodbye.
func saidGoodbye(message mem.BufferSlice) (cause string, ok bool) {
	if len(message) == 0 || message[0].Len() == 0 || message[0].ReadOnlyData()[0] != goodbye[0] {
		return "", false
	}
	return strings.CutPrefix(string(message.Materialize()), goodbye)
}

func (r *receiver) Recv() ([][]byte, error) {
	r.last.Free()
	r.last = nil
	var ok bool
	select {
	case r.last, ok = <-r.frames:
	case <-r.aborted:
		return nil, r.cause
	}
	if !ok {
		<-r.over
		if r.err != nil {
			return nil, r.err
		}
		return nil, io.EOF
	}
	r.pieces = r.pieces[:0]
	for _, b := range r.last {
		r.pieces = append(r.pieces, b.ReadOnlyData())
	}
	return r.pieces, nil
}

func (r *receiver) Wait() error {
	select {
	case <-r.over:
		return r.err
	case <-r.aborted:
		return r.cause
	}
}

func (r *receiver) end(cause error) {
	r.once.Do(func() { r.cause = cause; close(r.aborted) })
}

func (r *receiver) Abort(cause error) { r.end(cause) }

// Close releases what the stream holds. A sender that has not closed sees that this member left in good order.
func (r *receiver) Close(context.Context) error {
	r.end(nil)
	r.last.Free()
	r.last = nil
	return nil
}
