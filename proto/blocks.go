package proto

import (
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// blockBytes is the size of a block of a state: well under gRPC's message limit.
const blockBytes = 256 << 10

// BlockWriter turns a stream's Send into a writer that cuts its input into blocks.
func BlockWriter(send func(*Block) error) io.Writer { return blockWriter(send) }

type blockWriter func(*Block) error

func (w blockWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		// Copy: gRPC may hold a block after Send returns, and the buffer belongs to the caller of Write.
		block := append([]byte(nil), p[:min(len(p), blockBytes)]...)
		if err := w(&Block{Data: block}); err != nil {
			return written, err
		}
		written += len(block)
		p = p[len(block):]
	}
	return written, nil
}

// SendBlocks sends the output of write in blocks. It gives up a reader that takes no block for `quiet`. The handler
// must then return at once: that ends the blocked send, and with it write.
func SendBlocks(send func(*Block) error, quiet time.Duration, write func(io.Writer) error) error {
	taken, written := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		written <- write(BlockWriter(func(b *Block) error {
			err := send(b)
			select {
			case taken <- struct{}{}:
			default:
			}
			return err
		}))
	}()
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	for {
		select {
		case err := <-written:
			return err
		case <-taken:
			idle.Reset(quiet)
		case <-idle.C:
			return status.Errorf(codes.DeadlineExceeded, "no block was read for %v", quiet)
		}
	}
}

// BlockReader turns a stream's Recv into a reader.
func BlockReader(recv func() (*Block, error)) io.Reader { return &blockReader{recv: recv} }

type blockReader struct {
	recv func() (*Block, error)
	rest []byte
}

func (r *blockReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		b, err := r.recv()
		if err != nil {
			return 0, err
		}
		r.rest = b.Data
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
