package serving

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/emptypb"
)

// rig is a server for one member (36 connections) in a bubble, and what it logged.
type rig struct {
	t      *testing.T
	l      *bufconn.Listener
	log    bytes.Buffer
	panics atomic.Int64
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, l: bufconn.Listen(1 << 20)}
	server := NewServer(slog.New(slog.NewTextHandler(&r.log, nil)), func() { r.panics.Add(1) })
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(s any, ctx context.Context,
			decode func(any) error, i grpc.UnaryServerInterceptor) (any, error) {
			in := new(emptypb.Empty)
			if err := decode(in); err != nil {
				return nil, err
			}
			return i(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/Test/Call"},
				func(ctx context.Context, _ any) (any, error) {
					if md, _ := metadata.FromIncomingContext(ctx); len(md.Get("panic")) > 0 {
						panic("secret")
					}
					return new(emptypb.Empty), nil
				})
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Wait", ServerStreams: true, ClientStreams: true,
			Handler: func(_ any, s grpc.ServerStream) error {
				if md, _ := metadata.FromIncomingContext(s.Context()); len(md.Get("panic")) > 0 {
					var nothing []int
					_ = nothing[len(md)]
				}
				if err := s.SendHeader(nil); err != nil {
					return err
				}
				<-s.Context().Done()
				return s.Context().Err()
			}}},
	}, r)
	go func() { _ = server.Serve(Limited(r.l, 1)) }()
	t.Cleanup(server.Stop)
	return r
}

func (r *rig) client() *grpc.ClientConn {
	c, err := grpc.NewClient("passthrough:///member", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return r.l.DialContext(ctx) }),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) call(c *grpc.ClientConn, limit time.Duration, pairs ...string) error {
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(r.t.Context(), pairs...), limit)
	defer cancel()
	return c.Invoke(ctx, "/Test/Call", new(emptypb.Empty), new(emptypb.Empty), grpc.WaitForReady(true))
}

// wait opens a stream that ends with its context, and returns once it is served.
func (r *rig) wait(ctx context.Context, c *grpc.ClientConn) (grpc.ClientStream, error) {
	s, err := c.NewStream(ctx, &grpc.StreamDesc{StreamName: "Wait", ServerStreams: true, ClientStreams: true},
		"/Test/Wait")
	if err == nil {
		_, err = s.Header()
	}
	return s, err
}

// TestConnectionsAreBounded: a caller that fills all places with silent or idle connections keeps others out for a
// bounded time only.
func TestConnectionsAreBounded(t *testing.T) {
	for name, c := range map[string]struct {
		fill  func(*rig)
		limit time.Duration
	}{
		"half-open": {func(r *rig) {
			c, err := r.l.DialContext(r.t.Context())
			if err != nil {
				r.t.Fatal(err)
			}
			r.t.Cleanup(func() { _ = c.Close() })
		}, 2 * handshake},
		"idle": {func(r *rig) {
			if err := r.call(r.client(), time.Second); err != nil {
				r.t.Fatal(err)
			}
		}, 2 * idle},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				for range 36 {
					c.fill(r)
				}
				honest := r.client()
				if err := r.call(honest, handshake-time.Second); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("the 37th connection: %v, expected to wait", err)
				}
				if err := r.call(honest, c.limit); err != nil {
					t.Errorf("after the limit: %v", err)
				}
			})
		})
	}
}

// TestPanicsEndOneCall: log and count have the panic, the caller does not, and the next call is served.
func TestPanicsEndOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.client()
		err := r.call(c, time.Second, "panic", "1")
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("a call that panics: %v", err)
		}
		s, err := r.wait(metadata.AppendToOutgoingContext(t.Context(), "panic", "1"), c)
		if err == nil {
			err = s.RecvMsg(new(emptypb.Empty))
		}
		if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "index") {
			t.Errorf("a stream that panics: %v", err)
		}
		if err := r.call(c, time.Second); err != nil {
			t.Errorf("the next call: %v", err)
		}
		if log := r.log.String(); r.panics.Load() != 2 || !strings.Contains(log, "/Test/Call") ||
			!strings.Contains(log, "secret") || !strings.Contains(log, "/Test/Wait") {
			t.Errorf("%d counted, expected 2; the log:\n%s", r.panics.Load(), log)
		}
	})
}

// TestPingsAreAllowed: a client's pings keep a silent stream alive, as that of a follower in a long step.
func TestPingsAreAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		s, err := r.wait(ctx, r.client())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.RecvMsg(new(emptypb.Empty)) }()
		select {
		case err := <-ended:
			t.Errorf("the stream ended by itself: %v", err)
			ended <- err
		case <-time.After(10 * time.Minute): // virtual
		}
		cancel()
		<-ended
	})
}

// TestCallsAreBounded: the streams of one connection, and the headers of a call.
func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		c := r.client()
		if err := r.call(c, time.Second, "long", strings.Repeat("x", maxHeaders)); err == nil {
			t.Error("headers of more than 16 KiB were accepted")
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range maxStreams {
			if _, err := r.wait(ctx, c); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.call(c, time.Minute); status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("one stream more: %v, expected to wait", err)
		}
		if err := r.call(r.client(), time.Second); err != nil {
			t.Errorf("another connection: %v", err)
		}
	})
}

// TestRangesAreBounded: a range that cannot be is refused, and so is one more stream than there are places.
func TestRangesAreBounded(t *testing.T) {
	r := NewRanges("states", 2)
	for _, bad := range [][2]int64{{-1, 0}, {0, -1}} {
		if _, err := r.Begin(bad[0], bad[1]); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
	var end func()
	for range 2 {
		var err error
		if end, err = r.Begin(0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Begin(0, 1); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a third of two streams: %v", err)
	}
	end()
	if _, err := r.Begin(0, 1); err != nil {
		t.Errorf("a place is free: %v", err)
	}
}
