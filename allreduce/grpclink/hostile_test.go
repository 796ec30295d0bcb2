package grpclink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// wire is a stream's server end whose caller sends one Hello, or nothing.
type wire struct {
	grpc.ServerStream
	ctx   context.Context
	hello string
}

func (w *wire) Context() context.Context     { return w.ctx }
func (w *wire) SendHeader(metadata.MD) error { return nil }
func (w *wire) SetTrailer(metadata.MD)       {}
func (w *wire) RecvMsg(m any) error {
	if w.hello == "" {
		<-w.ctx.Done()
		return w.ctx.Err()
	}
	m.(*incoming).pieces = mem.BufferSlice{mem.SliceBuffer(w.hello)}
	w.hello = ""
	return nil
}

// handled runs the handler and ends the stream when it returns, as gRPC does.
func handled(s *Server, hello string) error {
	ctx, end := context.WithCancel(context.Background())
	defer end()
	return s.handle(&wire{ctx: ctx, hello: hello})
}

func TestCallersThatSayNothingAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begun := NewServer(nil, nil), time.Now()
		var all sync.WaitGroup
		for range 10_000 {
			all.Go(func() {
				if err := handled(s, ""); status.Code(err) != codes.DeadlineExceeded {
					t.Errorf("got %v, expected DeadlineExceeded", err)
				}
			})
		}
		all.Wait()
		if took := time.Since(begun); took != helloLimit {
			t.Errorf("gone after %v, expected %v", took, helloLimit)
		}
	})
}

// Streams of future generations are bounded in number and time, and leave room for the next generation's.
func TestParkedStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, begun := NewServer(nil, nil), time.Now()
		s.SetCurrent("job", 1, nil)
		hello := func(generation int) string {
			return fmt.Sprintf(`{"job":"job","generation":%d,"from":"a","to":"b"}`, generation)
		}
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() { _ = handled(s, hello(1000+i)) })
		}
		synctest.Wait()
		if n := len(s.parked); n != maxParked {
			t.Errorf("%d streams wait, expected %d", n, maxParked)
		}
		all.Go(func() { _ = handled(s, hello(2)) })
		synctest.Wait()
		s.SetCurrent("job", 2, nil)
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		r, err := s.Accept(ctx, "job", 2, "a")
		if err != nil {
			t.Fatalf("the next generation's stream: %v", err)
		}
		r.Abort(errors.New("enough"))
		all.Wait()
		if took := time.Since(begun); took > maxPark+time.Second || len(s.parked) > 0 {
			t.Errorf("%d streams wait after %v, expected none after %v", len(s.parked), took, maxPark)
		}
	})
}

// Parked streams are checked again when this member learns its world.
func TestParkedStreamThatTheNewWorldContradictsIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var refusal error
		s := NewServer(func(context.Context, Hello) error { return refusal }, nil)
		s.SetCurrent("job", 1, nil)
		ended := make(chan error, 1)
		go func() { ended <- handled(s, `{"job":"job","generation":2,"from":"a","to":"b"}`) }()
		synctest.Wait()
		refusal = errors.New("another world")
		s.SetCurrent("job", 2, nil)
		if err := <-ended; status.Code(err) != codes.InvalidArgument ||
			!strings.Contains(err.Error(), "another world") {
			t.Errorf("got %v, expected the check's refusal", err)
		}
	})
}

func TestHelloIsBounded(t *testing.T) {
	for _, hello := range []string{strings.Repeat(" ", maxHello+1), "[1]", "{"} {
		if err := handled(NewServer(nil, nil), hello); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a hello of %d bytes: got %v, expected InvalidArgument", len(hello), err)
		}
	}
}

// Connections that never begin HTTP/2 are closed, and do not keep a neighbour out.
func TestIdleConnectionsDoNotStay(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(ServerOptions(), grpc.ConnectionTimeout(200*time.Millisecond))...)
	NewServer(nil, nil).Register(server)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(socket) })
	defer serving.Wait()
	defer server.Stop()
	var idle []net.Conn
	for range 300 {
		c, err := net.Dial("tcp", socket.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	s, err := Dialer{}.Dial(ctx, socket.Addr().String(), Hello{Job: "job", Generation: 1, From: "a", To: "b"})
	if err != nil {
		t.Fatal(err)
	}
	s.Abort(errors.New("enough"))
	_ = s.Wait()
	for _, c := range idle {
		_ = c.SetReadDeadline(time.Now().Add(3 * time.Minute))
		for b := make([]byte, 1024); ; {
			if _, err := c.Read(b); err != nil {
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					t.Fatal("an idle connection is still open")
				}
				break
			}
		}
	}
}
