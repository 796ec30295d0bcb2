package proto

import (
	"testing"

	"google.golang.org/grpc/connectivity"
)

func TestRetainClosesAllOtherConnections(t *testing.T) {
	var p Pool
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
