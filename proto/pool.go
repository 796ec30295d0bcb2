package proto

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/keepalive"
)

// Limits of what the other process may send at once: it may not be the one that was meant.
const (
	maxReply   = blockBytes + 1<<10
	maxHeaders = 16 << 10
	window     = 2 << 20  // of a stream, and of a connection
	readBuffer = 64 << 10 // saves system calls while a state arrives
)

// Pool shares one connection to each address among all calls of a process. It is safe for concurrent use.
type Pool struct {
	Options []grpc.DialOption // how addresses are reached, credentials among them
	// Stale reports whether the error of a call means that its connection is out of date, for example after a change of
	// keys. The next call then uses a new connection. nil: no error means that.
	Stale func(error) bool

	frames FramePool

	mu    sync.Mutex
	conns map[string]*grpc.ClientConn
}

// Dial returns the connection to an address. gRPC connects at the first call.
func (p *Pool) Dial(address string) (*grpc.ClientConn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.conns[address]; ok {
		return c, nil
	}
	c, err := grpc.NewClient("passthrough:///"+address, append([]grpc.DialOption{
		grpc.WithNoProxy(), // a proxy is for traffic that leaves the cluster
		grpc.WithConnectParams(grpc.ConnectParams{
			// A member that restarts at its address must be found within a step or two, not after gRPC's default of
			// minutes.
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: 2 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second,
			PermitWithoutStream: false}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)), grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithReadBufferSize(readBuffer), experimental.WithBufferPool(&p.frames),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, request, reply any, on *grpc.ClientConn,
			invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
			return p.checked(address, on, invoke(ctx, method, request, reply, on, options...))
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, on *grpc.ClientConn,
			method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
			s, err := open(ctx, d, on, method, options...)
			if err != nil {
				return nil, p.checked(address, on, err)
			}
			return checkedStream{s, func(err error) error { return p.checked(address, on, err) }}, nil
		}),
	}, p.Options...)...)
	if err != nil {
		return nil, err
	}
	if p.conns == nil {
		p.conns = map[string]*grpc.ClientConn{}
	}
	p.conns[address] = c
	return c, nil
}

// checked closes the connection if err, which it returns, says that the connection is out of date.
func (p *Pool) checked(address string, conn *grpc.ClientConn, err error) error {
	if err == nil || p.Stale == nil || !p.Stale(err) {
		return err
	}
	p.mu.Lock()
	if p.conns[address] == conn {
		delete(p.conns, address)
	}
	p.mu.Unlock()
	_ = conn.Close()
	return err
}

type checkedStream struct {
	grpc.ClientStream
	checked func(error) error
}

// RecvMsg implements grpc.ClientStream.
func (s checkedStream) RecvMsg(m any) error { return s.checked(s.ClientStream.RecvMsg(m)) }

// Retain closes the connections to all addresses but these. A call in progress may dial another address again; the next
// Retain closes that connection.
func (p *Pool) Retain(addresses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.conns, func(address string, c *grpc.ClientConn) bool {
		if slices.Contains(addresses, address) {
			return false
		}
		_ = c.Close()
		return true
	})
}

// Close closes all connections.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}
