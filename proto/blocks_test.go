package proto

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// FuzzBlockCodec: blocks are on the wire what protobuf makes of them, and what is no block is refused or ignored, never
// taken for another.
func FuzzBlockCodec(f *testing.F) {
	for _, seed := range [][]byte{nil, {blockTag}, {blockTag, 0}, {blockTag, 2, 7, 8}, {blockTag, 255, 255, 255, 15}} {
		f.Add(seed)
	}
	c := encoding.GetCodecV2(blocksCodec)
	f.Fuzz(func(t *testing.T, p []byte) {
		ours, err := c.Marshal(&Block{Data: p})
		if err != nil {
			t.Fatal(err)
		}
		var theirs Block
		if err := proto.Unmarshal(ours.Materialize(), &theirs); err != nil || !bytes.Equal(theirs.Data, p) {
			t.Fatalf("protobuf reads %d bytes of %d: %v", len(theirs.Data), len(p), err)
		}
		back := Block{Data: make([]byte, 3)}
		if err := c.Unmarshal(ours, &back); err != nil || !bytes.Equal(back.Data, p) {
			t.Fatalf("%d bytes of %d: %v", len(back.Data), len(p), err)
		}
		var taken, meant Block
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(p)}, &taken); err == nil {
			if err := proto.Unmarshal(p, &meant); err != nil || !bytes.Equal(taken.Data, meant.Data) {
				t.Fatalf("%x is taken for a block of %d bytes: %v", p, len(taken.Data), err)
			}
		}
	})
}

// FuzzWordsCodec: an Update is what protobuf makes of it, whatever its memory held before, with words alone or not.
func FuzzWordsCodec(f *testing.F) {
	for _, seed := range [][]byte{nil, {wordsTag}, {wordsTag, 0}, {wordsTag, 2, 7, 8}, {wordsTag, 1, 7, wordsTag, 1, 8},
		{8, 3, wordsTag, 2, 7, 8}, {wordsTag, 2, 7, 8, 8, 3}, {wordsTag, 255, 255, 255, 15}} {
		f.Add(seed)
	}
	c := encoding.GetCodecV2(blocksCodec)
	f.Fuzz(func(t *testing.T, p []byte) {
		taken, meant := Update{Step: 9, Words: make([]byte, 3, 8)}, Update{}
		err, wrong := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(p)}, &taken), proto.Unmarshal(p, &meant)
		if (err == nil) != (wrong == nil) || err == nil && !proto.Equal(&taken, &meant) {
			t.Fatalf("%x is taken for %v, %v, and means %v, %v", p, &taken, err, &meant, wrong)
		}
		if err != nil {
			return
		}
		ours, err := c.Marshal(&meant)
		if err != nil {
			t.Fatal(err)
		}
		var back Update
		if err := proto.Unmarshal(ours.Materialize(), &back); err != nil || !proto.Equal(&back, &meant) {
			t.Fatalf("%v is sent as %v, %v", &meant, &back, err)
		}
	})
}

// holds is a member that sends one encoding.
type holds struct {
	UnimplementedMemberServer
	encoding []byte
}

func (s holds) State(r *StateRequest, stream grpc.ServerStreamingServer[Block]) error {
	return SendBlocks(stream.Send, time.Minute, func(yield func([]byte, error) bool) {
		if yield(nil, nil) { // a sign of life
			PiecesOf(bytes.NewReader(s.encoding[r.Offset:]))(yield)
		}
	})
}

// A state of any size arrives as it is, and a receiver that reads block by block needs a block of memory, not a state.
func TestBlocksOverGRPC(t *testing.T) {
	all := make([]byte, 3*blockBytes+17)
	rand.NewChaCha8([32]byte{1}).Read(all)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, serving := grpc.NewServer(), make(chan struct{})
	RegisterMemberServer(server, holds{encoding: all})
	go func() { defer close(serving); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-serving }()
	pool := Pool{Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}}
	defer pool.Close()
	conn, err := pool.Dial(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, options := range [][]grpc.CallOption{{AsBlocks}, nil} { // nil: protobuf's own codec
		for _, offset := range []int{0, 1, blockBytes, len(all) - 1, len(all)} {
			stream, err := NewMemberClient(conn).State(t.Context(), &StateRequest{Offset: int64(offset)}, options...)
			if err != nil {
				t.Fatal(err)
			}
			r := BlockReader(stream)
			if n, err := r.Read(make([]byte, 10)); n != 0 || err != nil {
				t.Errorf("a sign of life is read as %d bytes, %v", n, err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !slices.Equal(got, all[offset:]) {
				t.Errorf("from %d on: %d bytes, expected %d: %v", offset, len(got), len(all)-offset, err)
			}
		}
	}
}
