// Package serving makes the gRPC and HTTP servers of all processes, so that each has the same limits: a silent, slow or
// malformed caller, or a handler that panics, costs a bounded amount of memory and time, and affects no other call.
package serving

import (
	"context"
	"log/slog"
	"net"
	"runtime/debug"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

const (
	handshake  = 5 * time.Second  // for the start of HTTP/2 on a connection
	idle       = time.Minute      // that an unused connection is kept; its client dials again
	minPing    = 5 * time.Second  // clients ping every 10 s
	maxStreams = 32               // of one connection: a follower, probes, acknowledgements, states
	maxHeaders = 16 << 10         // bytes of a call's headers
	maxRequest = 64 << 10         // bytes of a message; that of a ring is larger
	window     = 64 << 10         // bytes that a stream, or a connection, may send before they are read
	maxPages   = 64               // connections to the status pages
	pageIdle   = 30 * time.Second // as idle, for status pages
)

// Limited bounds the connections of a job's gRPC server: each member has one for calls and one for its ring, and both
// twice while it dials again.
func Limited(l net.Listener, members int) net.Listener { return netutil.LimitListener(l, 4*members+32) }

// NewServer returns a gRPC server for small requests; transport may widen what they can be. A panic of a handler
// becomes codes.Internal, a line in the log and a call of panicked, which may come from several goroutines at once.
func NewServer(log *slog.Logger, panicked func(), transport ...grpc.ServerOption) *grpc.Server {
	g := guard{log, panicked}
	return grpc.NewServer(append([]grpc.ServerOption{
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(maxRequest), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream),
	}, transport...)...)
}

type guard struct {
	log      *slog.Logger
	panicked func()
}

func (g guard) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (reply any,
	err error) {
	defer g.recovered(info.FullMethod, &err)
	return handler(ctx, r)
}

func (g guard) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo,
	handler grpc.StreamHandler) (err error) {
	defer g.recovered(info.FullMethod, &err)
	return handler(server, stream)
}

// recovered is deferred. The caller does not get the panic's text: it may hold secrets.
func (g guard) recovered(method string, err *error) {
	if p := recover(); p != nil {
		g.log.Error("a call panicked: please report this", "method", method, "panic", p, "stack", string(debug.Stack()))
		g.panicked()
		*err = status.Error(codes.Internal, "the call failed: see the log of the process that served it")
	}
}

// Ranges are the streams of ranges of bytes that a server sends at the same time: a bounded number.
type Ranges struct {
	what string
	free chan struct{}
}

// NewRanges bounds streams of what is named, as "states".
func NewRanges(what string, most int) *Ranges { return &Ranges{what, make(chan struct{}, most)} }

// Begin begins a stream of length bytes from offset, if they can be and a place is free. The caller must call end.
func (r *Ranges) Begin(offset, length int64) (end func(), err error) {
	if offset < 0 || length < 0 {
		return nil, status.Errorf(codes.InvalidArgument, "%d bytes from offset %d: neither can be negative", length,
			offset)
	}
	select {
	case r.free <- struct{}{}:
		return func() { <-r.free }, nil
	default:
		return nil, status.Errorf(codes.ResourceExhausted, "%d %s are being sent: ask again", cap(r.free), r.what)
	}
}
