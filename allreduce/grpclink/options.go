package grpclink

import (
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"

	"evenweave/proto"
)

// The transport's sizes. The window is fixed, so gRPC sends no pings to estimate one, and larger than what a ring has
// in flight. Large buffers save system calls.
const (
	window      = 2 << 20
	writeBuffer = 128 << 10
	readBuffer  = 64 << 10
)

// The most that a ring may have in flight over these streams (allreduce.Config). With more, all members could block in
// Send and wait for each other.
const (
	MaxSegmentBytes = 64 << 10
	MaxWindowBytes  = window / 2
)

const (
	maxFrame   = MaxSegmentBytes + 1<<10 // a segment with its header
	maxMessage = maxHello + 1<<10        // the stream's first message is the largest
	maxTrailer = 3 << 19                 // of a refusal, with a world's record in base64
)

// dialOptions are the transport options of a ring's client.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxFrame)), grpc.WithMaxHeaderListSize(maxTrailer),
		grpc.WithWriteBufferSize(writeBuffer), grpc.WithReadBufferSize(readBuffer),
		experimental.WithBufferPool(new(proto.FramePool)),
	}
}

// ServerOptions are the transport options for a server that carries rings, its limits among them.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer),
		experimental.BufferPool(new(proto.FramePool)),
	}
}
