package coordinator

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/progress"
	"evenweave/proto"
)

// Serve registers the Coordinator service: members without a peer to fetch from load a checkpoint here.
func (c *Coordinator) Serve(s grpc.ServiceRegistrar) {
	proto.RegisterCoordinatorServer(s, &server{c: c})
}

type server struct {
	proto.UnimplementedCoordinatorServer
	c *Coordinator
}

// Checkpoint streams the newest valid checkpoint of the step asked for, verified, as the encoding of package state.
func (s *server) Checkpoint(r *proto.CheckpointRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	entries, err := s.c.store.List()
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	for _, e := range entries {
		if e.Step != r.Step {
			continue
		}
		_, payload, err := s.c.store.Read(stream.Context(), e.Path)
		if err != nil {
			s.c.Log.Warn("damaged checkpoint skipped", "path", e.Path, "err", err)
			continue
		}
		defer payload.Close()
		_, err = io.Copy(proto.BlockWriter(stream.Send), payload)
		return err
	}
	return status.Errorf(codes.NotFound, "no valid checkpoint of step %d in %s", r.Step, s.c.Dir)
}

// statusBoard keeps what the status page shows. Safe for concurrent use.
type statusBoard struct {
	mu     sync.Mutex
	latest map[string]progress.Event
	ledger *proto.Ledger
}

func newStatusBoard() *statusBoard { return &statusBoard{latest: map[string]progress.Event{}} }

// Observe keeps the newest event of each kind.
func (b *statusBoard) Observe(r progress.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.latest[r.Event.Kind()] = r.Event
}

func (b *statusBoard) told(_ string, s *proto.Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.Ledger != nil {
		b.ledger = s.Ledger
	}
}

func (b *statusBoard) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	b.mu.Lock()
	page := map[string]any{"ledger": b.ledger}
	for kind, e := range b.latest {
		page[kind] = e
	}
	b.mu.Unlock() // the client may read slowly
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
}
