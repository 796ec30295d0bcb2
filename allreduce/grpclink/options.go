package grpclink

import "google.golang.org/grpc"

// The transport's sizes. A window set by hand holds more than a ring ever has on its way, and spares the pings by which gRPC would guess it; large buffers spare system calls.
const (
	window      = 16 << 20
	writeBuffer = 128 << 10
	readBuffer  = 128 << 10
)

// DialOptions are the transport options of a ring's client; Dial sets them.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithWriteBufferSize(writeBuffer), grpc.WithReadBufferSize(readBuffer),
	}
}

// ServerOptions are the transport options for a server that carries rings.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.WriteBufferSize(writeBuffer), grpc.ReadBufferSize(readBuffer),
	}
}
