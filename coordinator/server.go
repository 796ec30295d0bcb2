package coordinator

import (
	"errors"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/security"
	"evenweave/internal/serving"
	"evenweave/proto"
)

// Serve registers the Coordinator service: members without a peer to fetch from load a checkpoint here.
func (c *Coordinator) Serve(s grpc.ServiceRegistrar) {
	proto.RegisterCoordinatorServer(s, &server{store: c.archive.Store, log: c.Log, view: c.views.Now, over: c.over,
		streams: serving.NewRanges("checkpoints", maxStreams)})
}

// streamQuiet is how long a caller may take to read a block, after which it is given up.
const streamQuiet = 60 * time.Second

// maxStreams bounds the checkpoints that are sent at once. Members ask again.
const maxStreams = 4

type server struct {
	proto.UnimplementedCoordinatorServer
	store   *checkpoint.Store
	log     *slog.Logger
	view    func() cluster.View
	over    *security.Transport
	streams *serving.Ranges
}

// Checkpoint streams the newest valid checkpoint of the step asked for, verified, as the encoding of package state, or
// a range of it. Its errors name neither job nor directory: the caller may belong to neither.
func (s *server) Checkpoint(r *proto.CheckpointRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	if view := s.view(); view.Job == nil || r.Job != view.Job.UUID {
		return status.Error(codes.FailedPrecondition, "this coordinator leads another job")
	} else if err := s.over.CheckReader(stream.Context(), view.Keys("")); err != nil {
		return err
	}
	end, err := s.streams.Begin(r.Offset, r.Length)
	if err != nil {
		return err
	}
	defer end()
	entries, err := s.store.List()
	if err != nil {
		s.log.Error("serving a checkpoint", "err", err)
		return status.Error(codes.Internal, "the checkpoints cannot be listed: see the coordinator's log")
	}
	for _, e := range entries {
		if e.Step != r.Step {
			continue
		}
		payload, err := s.store.ReadRange(stream.Context(), e.Path, r.Offset, r.Length)
		if ended := stream.Context().Err(); err != nil && ended != nil {
			return status.FromContextError(ended).Err()
		}
		if errors.As(err, new(*checkpoint.DamagedError)) {
			s.log.Warn("damaged checkpoint skipped", "path", e.Path, "err", err)
			continue
		}
		if err != nil {
			s.log.Error("serving a checkpoint", "err", err)
			return status.Error(codes.Internal, "the checkpoint cannot be read: see the coordinator's log")
		}
		defer payload.Close()
		return proto.SendBlocks(stream.Send, streamQuiet, proto.PiecesOf(payload))
	}
	return status.Errorf(codes.NotFound, "no valid checkpoint of step %d", r.Step)
}
