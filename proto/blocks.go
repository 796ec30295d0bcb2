package proto

import (
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// blockBytes is the size of a block of a state: well under gRPC's message limit.
const blockBytes = 256 << 10

// Pieces are bytes in order, or the error that ends them. A piece must not change before the next one is asked for.
type Pieces = iter.Seq2[[]byte, error]

// PiecesOf reads r to its end.
func PiecesOf(r io.Reader) Pieces {
	return func(yield func([]byte, error) bool) {
		b := make([]byte, blockBytes)
		for {
			n, err := io.ReadFull(r, b)
			if n > 0 && !yield(b[:n], nil) || err == io.EOF || err == io.ErrUnexpectedEOF {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
	}
}

// SendBlocks sends pieces in blocks; an empty one is a sign of life. It gives up a reader that takes no block for
// `quiet`. The handler must then return at once: that ends the blocked send.
func SendBlocks(send func(*Block) error, quiet time.Duration, pieces Pieces) error {
	return SendWatched(send, quiet, nil, func(send func(*Block) error) error { return eachBlock(pieces, send) })
}

// SendWatched calls run, which sends messages. Like SendBlocks, it gives up a reader that takes no message for `quiet`.
// A reader that takes nothing here may be busy with another stream: lastRead, if not nil, returns when it last took
// something there.
func SendWatched[M any](send func(M) error, quiet time.Duration, lastRead func() time.Time,
	run func(send func(M) error) error) error {
	taken, sent := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		sent <- run(func(m M) error {
			err := send(m)
			select {
			case taken <- struct{}{}:
			default:
			}
			return err
		})
	}()
	idle := time.NewTimer(quiet)
	defer idle.Stop()
	for {
		select {
		case err := <-sent:
			return err
		case <-taken:
			idle.Reset(quiet)
		case <-idle.C:
			if lastRead != nil {
				if left := quiet - time.Since(lastRead()); left > 0 {
					idle.Reset(left)
					continue
				}
			}
			return status.Errorf(codes.DeadlineExceeded, "nothing was read for %v", quiet)
		}
	}
}

func eachBlock(pieces Pieces, send func(*Block) error) error {
	for p, err := range pieces {
		if err != nil {
			return err
		}
		for more := true; more; more = len(p) > 0 {
			n := min(len(p), blockBytes)
			if err := send(&Block{Data: p[:n]}); err != nil {
				return err
			}
			p = p[n:]
		}
	}
	return nil
}

// BlockReader turns a stream of blocks into a reader. A sign of life is a read of no bytes.
func BlockReader(stream grpc.ClientStream) io.Reader { return &blockReader{stream: stream} }

type blockReader struct {
	stream grpc.ClientStream
	block  Block // its memory is used again
	rest   []byte
}

func (r *blockReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(p) >= blockBytes {
			return r.into(p)
		}
		if err := r.stream.RecvMsg(&r.block); err != nil {
			return 0, err
		}
		r.rest = r.block.Data
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// into receives the next block directly into p: each block that a member sends fits.
func (r *blockReader) into(p []byte) (int, error) {
	whole := Block{Data: p[:0:len(p)]}
	if err := r.stream.RecvMsg(&whole); err != nil {
		return 0, err
	}
	n := copy(p, whole.Data) // in place already, unless it is larger than p
	r.rest = whole.Data[n:]
	return n, nil
}

// AsBlocks is for calls that are answered by blocks, or by words: their bytes are copied once to be sent, into memory
// that is used again, and received into that of the message, if it has some. On the wire it is protobuf.
var AsBlocks = grpc.CallContentSubtype(blocksCodec)

const blocksCodec = "evenweave-blocks"

func init() {
	encoding.RegisterCodecV2(codec{encoding.GetCodecV2("proto"), mem.NewTieredBufferPool(blockBytes)})
}

// codec encodes blocks and words by hand, all else as protobuf does.
type codec struct {
	encoding.CodecV2
	copies mem.BufferPool
}

func (codec) Name() string { return blocksCodec }

// Tags that begin a field of bytes.
const (
	blockTag = 1<<3 | byte(protowire.BytesType)  // Block.data
	wordsTag = 10<<3 | byte(protowire.BytesType) // Update.words
)

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	switch m := v.(type) {
	case *Block:
		return c.field(blockTag, m.Data), nil
	case *Update:
		if n := len(m.Words); n > 0 && proto.Size(m) == 1+protowire.SizeBytes(n) { // nothing else is set
			return c.field(wordsTag, m.Words), nil
		}
	}
	return c.CodecV2.Marshal(v)
}

// field is a field of bytes. They are copied, because gRPC sends on after Send and even the stream's handler have
// returned: the memory of a state could never be used again, and that of the next one costs several times as much as
// copying to what the cache holds.
func (c codec) field(tag byte, p []byte) mem.BufferSlice {
	head := protowire.AppendVarint([]byte{tag}, uint64(len(p)))
	return mem.BufferSlice{mem.SliceBuffer(head), mem.Copy(p, c.copies)}
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch m := v.(type) {
	case *Block:
		if data.Len() == 0 {
			m.Data = nil
			return nil
		}
		if p, ok := fieldOf(blockTag, data, m.Data); ok {
			m.Data = p
			return nil
		}
		return fmt.Errorf("a block of %d bytes: expected one field of bytes", data.Len())
	case *Update:
		if p, ok := fieldOf(wordsTag, data, m.Words); ok {
			m.Reset()
			m.Words = p
			return nil
		}
	}
	return c.CodecV2.Unmarshal(data, v)
}

// fieldOf reads a message that is one field of bytes, into memory that may be too small; false: it is another message.
func fieldOf(tag byte, data mem.BufferSlice, memory []byte) ([]byte, bool) {
	r := data.Reader()
	defer r.Close()
	first, err := r.ReadByte()
	size, malformed := binary.ReadUvarint(r)
	if err != nil || malformed != nil || first != tag || size != uint64(r.Remaining()) {
		return nil, false
	}
	p := slices.Grow(memory[:0], int(size))[:size]
	_, err = io.ReadFull(r, p)
	return p, err == nil
}
