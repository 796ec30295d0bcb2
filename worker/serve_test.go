package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/connectivity"

	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/security"
	"evenweave/proto"
)

// TestLeavingWhileCompiling: a request to leave, and the end of the context, take effect although a compiler cannot be
// interrupted.
func TestLeavingWhileCompiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		defer synctest.Wait()
		defer close(gate)
		cfg := Config{Log: slog.New(slog.DiscardHandler), Open: func(context.Context, job.Job) (Opened, error) {
			<-gate
			return Opened{example.NewSoftmax(), example.Points{}, probe.Golden{Hash: "bits"}}, nil
		}}
		leaving := make(chan struct{})
		close(leaving)
		if o, err := cfg.open(t.Context(), job.Job{}, leaving); o.Model != nil || err != nil {
			t.Errorf("asked to leave: %v, %v", o.Model, err)
		}
		why := errors.New("a second signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if _, err := cfg.open(ctx, job.Job{}, nil); !errors.Is(err, why) {
			t.Errorf("interrupted: %v", err)
		}
		cfg.Open = func(context.Context, job.Job) (Opened, error) {
			return Opened{example.NewSoftmax(), example.Points{}, probe.Golden{Hash: "bits"}}, nil
		}
		if o, err := cfg.open(t.Context(), job.Job{}, nil); o.Model == nil || o.Data == nil ||
			o.Numerics.Hash != "bits" ||
			err != nil {
			t.Errorf("opened: %+v, %v", o, err)
		}
	})
}

// TestConnectionsEndWithTheirWorld: a member keeps no connections to processes outside its world, but the one to a
// member from which it takes the last step before that world.
func TestConnectionsEndWithTheirWorld(t *testing.T) {
	for _, from := range []string{"", "127.0.0.1:2"} {
		pool := &proto.Pool{Options: security.For(nil).Options(security.Worker)}
		defer pool.Close()
		states := map[string]func() connectivity.State{}
		for _, address := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"} {
			c, err := pool.Dial(address)
			if err != nil {
				t.Fatal(err)
			}
			states[address] = c.GetState
		}
		l := &Loop{Retain: pool.Retain}
		if from != "" {
			l.catching = &catchUp{from: job.Peer{Address: from}}
		}
		l.retain(job.World{Coordinator: "127.0.0.1:1", Peers: []job.Peer{{ID: "b", Address: "127.0.0.1:3"}}})
		for address, state := range states {
			if gone := state() == connectivity.Shutdown; gone != (address == "127.0.0.1:2" && from == "") {
				t.Errorf("catching up with %q: %s: closed %v", from, address, gone)
			}
		}
	}
}
