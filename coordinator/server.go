package coordinator

import (
	"io"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/proto"
)

// Serve registers the Coordinator service: members without a peer to fetch from load a checkpoint here.
func (c *Coordinator) Serve(s grpc.ServiceRegistrar) {
	view := func() cluster.View {
		v, _ := c.views.View()
		return v
	}
	proto.RegisterCoordinatorServer(s, &server{store: c.archive.Store, log: c.Log, view: view,
		streams: make(chan struct{}, maxStreams)})
}

const streamTimeout = 60 * time.Second // as long as a member may take to fetch

// sendWithin sends a payload and closes it. A caller that does not read is given up: the end of the handler ends the
// Send that it blocks.
func sendWithin(limit time.Duration, payload io.ReadCloser, stream grpc.ServerStreamingServer[proto.Block]) error {
	sent := make(chan error, 1)
	go func() {
		defer payload.Close()
		_, err := io.Copy(proto.BlockWriter(stream.Send), payload)
		sent <- err
	}()
	select {
	case err := <-sent:
		return err
	case <-time.After(limit):
		return status.Error(codes.DeadlineExceeded, "the checkpoint was not read in time")
	}
}

// maxStreams bounds the checkpoints that are sent at once. Members ask again.
const maxStreams = 4

type server struct {
	proto.UnimplementedCoordinatorServer
	store   *checkpoint.Store
	log     *slog.Logger
	view    func() cluster.View
	streams chan struct{} // one entry a stream
}

// Checkpoint streams the newest valid checkpoint of the step asked for, verified, as the encoding of package state.
// What it answers names neither job nor directory: the caller may belong to neither.
func (s *server) Checkpoint(r *proto.CheckpointRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	if view := s.view(); view.Job == nil || r.Job != view.Job.UUID {
		return status.Error(codes.FailedPrecondition, "this coordinator leads another job")
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d checkpoints are being sent: ask again", maxStreams)
	}
	entries, err := s.store.List()
	if err != nil {
		s.log.Error("serving a checkpoint", "err", err)
		return status.Error(codes.Internal, "the checkpoints cannot be listed: see the coordinator's log")
	}
	for _, e := range entries {
		if e.Step != r.Step {
			continue
		}
		_, payload, err := s.store.Read(stream.Context(), e.Path)
		if err != nil {
			s.log.Warn("damaged checkpoint skipped", "path", e.Path, "err", err)
			continue
		}
		return sendWithin(streamTimeout, payload, stream)
	}
	return status.Errorf(codes.NotFound, "no valid checkpoint of step %d", r.Step)
}
