package proto

import (
	"context"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// TestMain gives all tests a proxy that does not run, as many clusters have one for outside traffic.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		_ = os.Setenv(name, "http://127.0.0.1:9")
	}
	os.Exit(m.Run())
}

func plain() *Pool {
	return &Pool{Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}}
}

// TestNoProxy: an address that is not loopback by its name would be asked for through the proxy.
func TestNoProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	p := plain()
	defer p.Close()
	c, err := p.Dial("0.0.0.0:" + port)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c.Connect()
	for s := c.GetState(); s != connectivity.Ready; s = c.GetState() {
		if s == connectivity.TransientFailure || !c.WaitForStateChange(ctx, s) {
			t.Fatalf("the connection is %v", s)
		}
	}
}

func TestRetainClosesAllOtherConnections(t *testing.T) {
	p := plain()
	defer p.Close()
	dial := func(address string) connectivity.State {
		c, err := p.Dial(address)
		if err != nil {
			t.Fatal(err)
		}
		return c.GetState()
	}
	dial("127.0.0.1:1")
	kept, err := p.Dial("127.0.0.1:2")
	if err != nil {
		t.Fatal(err)
	}
	gone, err := p.Dial("127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	p.Retain([]string{"127.0.0.1:2", "127.0.0.1:4"})
	if len(p.conns) != 1 || gone.GetState() != connectivity.Shutdown {
		t.Errorf("%d connections are left, the one to a member that is gone is %v", len(p.conns), gone.GetState())
	}
	if again, err := p.Dial("127.0.0.1:2"); err != nil || again != kept || kept.GetState() == connectivity.Shutdown {
		t.Errorf("the connection in use was not kept: %v", err)
	}
	if s := dial("127.0.0.1:3"); s == connectivity.Shutdown {
		t.Error("a closed connection was handed out")
	}
}

// sends is a member whose states have one block of a size.
type sends struct {
	UnimplementedMemberServer
	size int
}

func (s sends) State(_ *StateRequest, stream grpc.ServerStreamingServer[Block]) error {
	return stream.Send(&Block{Data: make([]byte, s.size)})
}

// TestRepliesAreBounded: what a called process sends at once is a block at most.
func TestRepliesAreBounded(t *testing.T) {
	for size, want := range map[int]codes.Code{blockBytes: codes.OK, maxReply: codes.ResourceExhausted} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, done := grpc.NewServer(), make(chan struct{})
		RegisterMemberServer(server, sends{size: size})
		go func() { defer close(done); _ = server.Serve(l) }()
		p := plain()
		c, err := p.Dial(l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		stream, err := NewMemberClient(c).State(t.Context(), &StateRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("a block of %d bytes: %v, want %v", size, err, want)
		}
		p.Close()
		server.Stop()
		<-done
	}
}

// TestARefusedConnectionIsReplaced: a connection keeps the certificates that it was made with. Here the server takes no
// call of its first connection any more, and the caller no answer of it.
func TestARefusedConnectionIsReplaced(t *testing.T) {
	for name, refuse := range map[string]struct{ server, caller codes.Code }{
		"by the server, which knows no such caller": {server: codes.PermissionDenied},
		"by the server, which knows no such key":    {server: codes.Unauthenticated},
		"by the caller":                             {caller: codes.Unauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			var old atomic.Pointer[string] // the refused connection, by the caller's address
			refused := func(ctx context.Context, code codes.Code) error {
				from, _ := peer.FromContext(ctx)
				if at := old.Load(); at != nil && *at == from.Addr.String() && code != codes.OK {
					return status.Error(code, "it shows an old certificate")
				}
				return nil
			}
			m := &member{refused: func(ctx context.Context) error { return refused(ctx, refuse.server) }}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			RegisterMemberServer(server, m)
			go func() { _ = server.Serve(l) }()
			defer server.Stop()
			p := plain()
			p.Stale = func(err error) bool { return status.Code(err) != codes.Canceled }
			defer p.Close()
			var first atomic.Pointer[grpc.ClientConn]
			calls := map[string]func(c *grpc.ClientConn, options ...grpc.CallOption) error{
				"a call": func(c *grpc.ClientConn, options ...grpc.CallOption) error {
					_, err := NewMemberClient(c).Probe(t.Context(), &ProbeRequest{}, options...)
					return err
				},
				"a stream": func(c *grpc.ClientConn, options ...grpc.CallOption) error {
					s, err := NewMemberClient(c).State(t.Context(), &StateRequest{}, options...)
					if err == nil {
						_, err = s.Recv()
					}
					return err
				},
			}
			for what, call := range calls {
				old.Store(nil)
				dial := func() error {
					c, err := p.Dial(l.Addr().String())
					if err != nil {
						t.Fatal(err)
					}
					first.CompareAndSwap(nil, c)
					return call(c, grpc.PerRPCCredentials(certificates(func() error {
						if c == first.Load() && old.Load() != nil && refuse.caller != codes.OK {
							return status.Error(refuse.caller, "the other end shows an old certificate")
						}
						return nil
					})))
				}
				first.Store(nil)
				if err := dial(); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				old.Store(m.caller.Load())
				want := max(refuse.server, refuse.caller)
				if err := dial(); status.Code(err) != want {
					t.Errorf("%s on the old connection: %v, want %v", what, err, want)
				}
				if err := dial(); err != nil {
					t.Errorf("%s after it: %v", what, err)
				}
			}
		})
	}
}

// member answers each caller that it does not refuse.
type member struct {
	UnimplementedMemberServer
	refused func(context.Context) error
	caller  atomic.Pointer[string]
}

func (m *member) answer(ctx context.Context) error {
	from, _ := peer.FromContext(ctx)
	at := from.Addr.String()
	m.caller.Store(&at)
	return m.refused(ctx)
}

func (m *member) Probe(ctx context.Context, _ *ProbeRequest) (*Status, error) {
	return &Status{}, m.answer(ctx)
}

func (m *member) State(_ *StateRequest, s grpc.ServerStreamingServer[Block]) error {
	if err := m.answer(s.Context()); err != nil {
		return err
	}
	return s.Send(&Block{})
}

// certificates is what a caller demands of the other end.
type certificates func() error

func (c certificates) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, c()
}
func (certificates) RequireTransportSecurity() bool { return false }
