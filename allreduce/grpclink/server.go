package grpclink

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"evenweave/allreduce"
)

const (
	serviceName = "evenweave.Ring"
	streamName  = "Link"
	admittedKey = "evenweave-admitted"
	worldKey    = "evenweave-world-bin"

	maxHello  = 1 << 20         // bytes
	maxParked = 64              // streams
	maxPark   = 2 * time.Minute // that a stream waits for Accept
)

// Server takes in the streams of left neighbours and parks each until the ring that it belongs to is opened. It is safe for concurrent use.
type Server struct {
	onWorld func(world []byte)

	mu         sync.Mutex
	job        string
	generation int64
	world      []byte
	parked     map[parkKey]*receiver
	changed    chan struct{} // closed, and replaced, when parked gains a stream
}

type parkKey struct {
	job        string
	generation int64
	from       string
}

// NewServer returns a server that has no generation yet: it parks whatever comes. onWorld, if not nil, gets the world record of each Hello of a newer generation; it must not block.
func NewServer(onWorld func(world []byte)) *Server {
	return &Server{onWorld: onWorld, parked: map[parkKey]*receiver{}, changed: make(chan struct{})}
}

// Register adds the ring's service to a gRPC server, which should have been made with ServerOptions.
func (s *Server) Register(registrar grpc.ServiceRegistrar) {
	registrar.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: streamName, ClientStreams: true, ServerStreams: true,
			Handler: func(_ any, stream grpc.ServerStream) error { return s.handle(stream) }}},
	}, s)
}

// SetCurrent says what this member is at. Streams of an older generation are refused with codes.Aborted and this world record, streams of another job with codes.FailedPrecondition, also those that are parked.
func (s *Server) SetCurrent(job string, generation int64, world []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.job, s.generation, s.world = job, generation, world
	for key, r := range s.parked {
		if s.judge(key.job, key.generation) != nil {
			delete(s.parked, key)
			close(r.refused)
		}
	}
}

// judge says whether a stream of the given ring may wait here. s.mu is held.
func (s *Server) judge(job string, generation int64) error {
	switch {
	case s.job != "" && job != s.job:
		return status.Errorf(codes.FailedPrecondition, "this member works on job %s, not on %s", s.job, job)
	case s.job != "" && generation < s.generation:
		return status.Errorf(codes.Aborted, "generation %d is over: this member is at %d", generation, s.generation)
	}
	return nil
}

// Accept waits for the stream of the left neighbour fromID in the given ring, and returns it. The stream may have come before.
func (s *Server) Accept(ctx context.Context, job string, generation int64, fromID string) (allreduce.Receiver, error) {
	begun := time.Now()
	key := parkKey{job, generation, fromID}
	for {
		s.mu.Lock()
		r, changed := s.parked[key], s.changed
		delete(s.parked, key)
		s.mu.Unlock()
		if r != nil {
			close(r.accepted)
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &allreduce.Error{Kind: allreduce.Deadline, Err: fmt.Errorf("no stream came from %s: %w", fromID, context.Cause(ctx)),
				Edge: allreduce.Edge{Op: "accept", Rank: -1, Peer: -1, PeerID: fromID, Generation: generation, Waited: time.Since(begun)}}
		}
	}
}

// handle serves one stream from its Hello to its end.
func (s *Server) handle(stream grpc.ServerStream) error {
	hello, err := readHello(stream)
	if err != nil {
		return err
	}
	key := parkKey{hello.Job, hello.Generation, hello.From}
	r := newReceiver(stream)
	if err := s.park(key, r); err != nil {
		return s.refuse(stream, key)
	}
	s.tell(hello)
	if err := stream.SendHeader(metadata.Pairs(admittedKey, "1")); err != nil {
		s.unpark(key, r)
		return err
	}
	tooLong := time.NewTimer(maxPark)
	defer tooLong.Stop()
	select {
	case <-r.accepted:
		return r.serve()
	case <-r.refused:
		return s.refuse(stream, key)
	case <-stream.Context().Done():
		err = status.FromContextError(stream.Context().Err()).Err()
	case <-tooLong.C:
		err = status.Errorf(codes.DeadlineExceeded, "this member did not open generation %d within %v", key.generation, maxPark)
	}
	if !s.unpark(key, r) { // Accept was faster.
		return r.serve()
	}
	return err
}

func readHello(stream grpc.ServerStream) (Hello, error) {
	var hello Hello
	var in incoming
	if err := stream.RecvMsg(&in); err != nil {
		return hello, err
	}
	defer in.pieces.Free()
	if n := in.pieces.Len(); n > maxHello {
		return hello, status.Errorf(codes.InvalidArgument, "a hello of %d bytes, expected at most %d", n, maxHello)
	}
	if err := json.Unmarshal(in.pieces.Materialize(), &hello); err != nil {
		return hello, status.Errorf(codes.InvalidArgument, "the first message is no hello: %v", err)
	}
	return hello, nil
}

// park keeps a stream for Accept. A second stream of the same neighbour replaces the first, whose sender must be gone.
func (s *Server) park(key parkKey, r *receiver) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.judge(key.job, key.generation); err != nil {
		return err
	}
	if old := s.parked[key]; old != nil {
		close(old.refused)
	} else if len(s.parked) >= maxParked {
		return status.Errorf(codes.ResourceExhausted, "%d streams wait here already", maxParked)
	}
	s.parked[key] = r
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// unpark reports whether the stream was still waiting.
func (s *Server) unpark(key parkKey, r *receiver) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parked[key] != r {
		return false
	}
	delete(s.parked, key)
	return true
}

// tell passes on a newer world.
func (s *Server) tell(hello Hello) {
	s.mu.Lock()
	newer := s.job == "" || hello.Generation > s.generation
	s.mu.Unlock()
	if newer && s.onWorld != nil && len(hello.World) > 0 {
		s.onWorld(hello.World)
	}
}

// refuse ends a stream that may not wait here, with the world record that explains it.
func (s *Server) refuse(stream grpc.ServerStream, key parkKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.judge(key.job, key.generation)
	if status.Code(err) == codes.Aborted {
		stream.SetTrailer(metadata.Pairs(worldKey, string(s.world)))
	}
	if err == nil {
		err = status.Error(codes.ResourceExhausted, "another stream of the same neighbour took its place, or too many wait")
	}
	return err
}
