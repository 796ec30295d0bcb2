package proto

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
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
