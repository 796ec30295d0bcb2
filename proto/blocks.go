package proto

import "io"

// blockBytes is the size in which states travel: well under gRPC's message limit.
const blockBytes = 256 << 10

// BlockWriter turns a stream's Send into a writer that cuts what it is given into blocks.
func BlockWriter(send func(*Block) error) io.Writer { return blockWriter(send) }

type blockWriter func(*Block) error

func (w blockWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		// gRPC may still hold a block when Send returns, and a writer's buffer belongs to its caller: hence the copy.
		block := append([]byte(nil), p[:min(len(p), blockBytes)]...)
		if err := w(&Block{Data: block}); err != nil {
			return written, err
		}
		written += len(block)
		p = p[len(block):]
	}
	return written, nil
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
