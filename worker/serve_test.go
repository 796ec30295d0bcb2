package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/connectivity"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/job"
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
		cfg := Config{Log: slog.New(slog.DiscardHandler), Open: func(context.Context, job.Job) (evenweave.Model,
			evenweave.Data, string, error) {
			<-gate
			return example.NewSoftmax(), example.Points{}, "bits", nil
		}}
		leaving := make(chan struct{})
		close(leaving)
		if model, _, _, err := cfg.open(t.Context(), job.Job{}, leaving); model != nil || err != nil {
			t.Errorf("asked to leave: %v, %v", model, err)
		}
		why := errors.New("a second signal")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if _, _, _, err := cfg.open(ctx, job.Job{}, nil); !errors.Is(err, why) {
			t.Errorf("interrupted: %v", err)
		}
		cfg.Open = func(context.Context, job.Job) (evenweave.Model, evenweave.Data, string, error) {
			return example.NewSoftmax(), example.Points{}, "bits", nil
		}
		if model, data, numerics, err := cfg.open(t.Context(), job.Job{}, nil); model == nil || data == nil ||
			numerics != "bits" || err != nil {
			t.Errorf("opened: %v, %v, %q, %v", model, data, numerics, err)
		}
	})
}

// TestConnectionsEndWithTheirWorld: a member keeps no connections to processes outside its world.
func TestConnectionsEndWithTheirWorld(t *testing.T) {
	pool := &proto.Pool{Options: security.For(nil).Options()}
	defer pool.Close()
	states := map[string]func() connectivity.State{}
	for _, address := range []string{"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"} {
		c, err := pool.Dial(address)
		if err != nil {
			t.Fatal(err)
		}
		states[address] = c.GetState
	}
	connected := false
	connect := retaining(pool, func(context.Context, job.World, int) (Collective, error) {
		connected = true
		return nil,
			nil
	})
	if _, err := connect(t.Context(), job.World{Coordinator: "127.0.0.1:1",
		Peers: []job.Peer{{ID: "b", Address: "127.0.0.1:3"}}}, 0); err != nil || !connected {
		t.Fatalf("connected %v: %v", connected, err)
	}
	for address, state := range states {
		if gone := state() == connectivity.Shutdown; gone != (address == "127.0.0.1:2") {
			t.Errorf("%s: closed %v", address, gone)
		}
	}
}
