package coordinator

import (
	"context"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/policy"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/proto"
)

// answers is a member that counts what reaches it.
type answers struct {
	serves
	asked *atomic.Int64
}

func (a answers) Probe(context.Context, *proto.ProbeRequest) (*proto.Status, error) {
	a.asked.Add(1)
	return &proto.Status{Member: "a"}, nil
}

func (a answers) Acknowledge(context.Context, *proto.AcknowledgeRequest) (*proto.AcknowledgeReply, error) {
	a.asked.Add(1)
	return &proto.AcknowledgeReply{}, nil
}

func (a answers) State(r *proto.StateRequest, s grpc.ServerStreamingServer[proto.Block]) error {
	a.asked.Add(1)
	return a.serves.State(r, s)
}

// TestCallsReachTheMemberThatTheyName, and none other that has its address, whatever its role. When the member has
// another key than when it was first called, it is called over another connection.
func TestCallsReachTheMemberThatTheyName(t *testing.T) {
	dir := t.TempDir()
	a, _, err := security.OpenAuthority(filepath.Join(dir, "ca"), "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	over := func(name string, role security.Role) *security.Transport {
		to := filepath.Join(dir, name)
		if _, err := a.Issue(to, role, time.Hour); err != nil {
			t.Fatal(err)
		}
		keys, err := security.Load(security.FilesIn(to), security.Identity{Role: role, Job: "test"})
		if err != nil {
			t.Fatal(err)
		}
		return security.Over(keys)
	}
	one, _ := leading(t)
	d := one.dialer
	d.over = over("coordinator", security.Coordinator)
	d.pool = &proto.Pool{Options: d.over.Options(security.Worker), Stale: security.OtherKey}
	defer d.pool.Close()
	agreed := state.New(d.layout, d.samples)
	agreed.Step = 10
	sum := state.Seal(agreed).SHA256
	asked := &atomic.Int64{}
	// serve serves a, until stop; conceal takes new connections no more.
	serve := func(as *security.Transport, at string) (address string, conceal, stop func()) {
		t.Helper()
		l, err := net.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		server, serving := grpc.NewServer(as.ServerOptions()...), make(chan struct{})
		proto.RegisterMemberServer(server, answers{serves{state: agreed, change: func(p []byte) []byte { return p }},
			asked})
		go func() { defer close(serving); _ = server.Serve(l) }()
		return l.Addr().String(), func() { _ = l.Close(); <-serving }, func() { server.Stop(); <-serving }
	}
	first, renewed, other := over("a", security.Worker), over("renewed", security.Worker), over("b", security.Worker)
	calls := map[string]func(address string) error{
		"Probe": func(address string) error {
			ctx, stop := context.WithTimeout(t.Context(), policy.ProbeTimeout)
			defer stop()
			if outcome := d.ask(ctx, "a", address); outcome != policy.Alive {
				return status.Error(codes.Unauthenticated, "it is not alive")
			}
			return nil
		},
		"Acknowledge": func(address string) error { return d.acknowledge(t.Context(), "a", address, 10) },
		"State": func(address string) error {
			ctx, stop := context.WithTimeout(t.Context(), policy.ProbeTimeout)
			defer stop()
			_, err := d.fetch(ctx, "a", address, 10, string(sum[:]))
			return err
		},
	}
	for name, call := range calls {
		address, _, stop := serve(other, "127.0.0.1:0")
		d.keys = func(string) []string { return first.Registered() }
		if err := call(address); err == nil || asked.Load() != 0 {
			t.Errorf("%s of a member reaches another with its address: %v, %d calls", name, err, asked.Load())
		}
		d.keys = func(string) []string { return other.Registered() } // b had been registered there
		if err := call(address); err != nil {
			t.Errorf("%s of the member with the key: %v", name, err)
		}
		stop()
		asked.Store(0)
	}

	for name, call := range calls { // the member renews its key; the connection that was made before stands
		address, conceal, stop := serve(first, "127.0.0.1:0")
		d.keys = func(string) []string { return first.Registered() }
		if err := call(address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		conceal()
		_, _, stopRenewed := serve(renewed, address)
		d.keys = func(string) []string { return renewed.Registered() }
		err := call(address)
		if err != nil && name == "Acknowledge" { // the member's next status asks for it again
			err = call(address)
		}
		if err != nil {
			t.Errorf("%s of a member that has renewed its key: %v", name, err)
		}
		stop()
		stopRenewed()
	}
}
