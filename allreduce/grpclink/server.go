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

	maxHello   = 1<<20 + 64<<10   // bytes: a world's record, and what else a Hello says
	maxParked  = 16               // streams
	maxPark    = 30 * time.Second // that a stream may wait for Accept
	helloLimit = 4 * time.Second  // that a caller may take to send its Hello
)

// Server accepts the streams of left neighbours and parks each until its ring is opened. It is safe for concurrent use.
type Server struct {
	check   func(context.Context, Hello) error
	onWorld func(world []byte)

	mu         sync.Mutex
	job        string
	generation int64
	world      []byte
	parked     map[parkKey]*receiver
	taken      parkKey       // the stream that Accept returned last
	changed    chan struct{} // closed, and replaced, when parked gains a stream
}

type parkKey struct {
	job        string
	generation int64
	from       string
}

// NewServer returns a server that has no generation yet: it parks each stream that check accepts (nil: every stream).
// SetCurrent calls check again for each parked stream. The sender gets the error of check, so it must hold no secret of
// this member. onWorld, if not nil, gets the world record of each admitted Hello of a newer generation. Neither
// function may block.
func NewServer(check func(context.Context, Hello) error, onWorld func(world []byte)) *Server {
	return &Server{check: check, onWorld: onWorld, parked: map[parkKey]*receiver{}, changed: make(chan struct{})}
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

// SetCurrent sets this member's job, generation and world record. The server then refuses streams of an older
// generation, with codes.Aborted and the record, and streams of another job, with codes.FailedPrecondition; parked ones
// too.
func (s *Server) SetCurrent(job string, generation int64, world []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.job, s.generation, s.world = job, generation, world
	for key, r := range s.parked {
		if err := s.admissible(r); err != nil {
			s.drop(key, err)
		}
	}
}

// admissible returns why a stream may not wait here, or nil. s.mu is held.
func (s *Server) admissible(r *receiver) error {
	hello := r.hello
	switch {
	case s.job != "" && hello.Job != s.job:
		return status.Error(codes.FailedPrecondition, "this member works on another job")
	case s.job != "" && hello.Generation < s.generation:
		return status.Errorf(codes.Aborted, "generation %d is over: this member is at %d",
			hello.Generation, s.generation)
	case s.check != nil:
		if err := s.check(r.stream.Context(), hello); err != nil {
			return status.Error(codes.InvalidArgument, shorten(err.Error()))
		}
	}
	return nil
}

// drop refuses a parked stream. s.mu is held.
func (s *Server) drop(key parkKey, why error) {
	r := s.parked[key]
	delete(s.parked, key)
	r.refusal = why
	close(r.refused)
}

// Accept returns the stream of the left neighbour fromID in the given ring. It waits for the stream unless it is parked
// already.
func (s *Server) Accept(ctx context.Context, job string, generation int64, fromID string) (allreduce.Receiver, error) {
	begun := time.Now()
	key := parkKey{job, generation, fromID}
	for {
		s.mu.Lock()
		r, changed := s.parked[key], s.changed
		if r != nil {
			delete(s.parked, key)
			s.taken = key
		}
		s.mu.Unlock()
		if r != nil {
			close(r.accepted)
			return r, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, &allreduce.Error{
				Kind: allreduce.Deadline,
				Err:  fmt.Errorf("no stream came from %s: %w", fromID, context.Cause(ctx)),
				Edge: allreduce.Edge{Op: "accept", Rank: -1, Peer: -1, PeerID: fromID, Generation: generation,
					Waited: time.Since(begun)},
			}
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
	r.hello = hello
	if err := s.park(key, r); err != nil {
		return s.refuse(stream, err)
	}
	s.passOn(hello)
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
		return s.refuse(stream, r.refusal)
	case <-stream.Context().Done():
		err = status.FromContextError(stream.Context().Err()).Err()
	case <-tooLong.C:
		err = status.Errorf(codes.DeadlineExceeded, "this member did not open generation %d within %v",
			key.generation, maxPark)
	}
	if !s.unpark(key, r) { // Accept was faster.
		return r.serve()
	}
	return err
}

// readHello waits for the first message, for helloLimit at most. Then the handler returns, which ends the RecvMsg that
// still waits.
func readHello(stream grpc.ServerStream) (Hello, error) {
	var in incoming
	said := make(chan error, 1)
	go func() { said <- stream.RecvMsg(&in) }()
	silent := time.NewTimer(helloLimit)
	defer silent.Stop()
	select {
	case err := <-said:
		if err != nil {
			return Hello{}, err
		}
		return parseHello(in)
	case <-silent.C:
		return Hello{}, status.Errorf(codes.DeadlineExceeded, "no hello came within %v", helloLimit)
	}
}

func parseHello(in incoming) (Hello, error) {
	var hello Hello
	defer in.pieces.Free()
	if n := in.pieces.Len(); n > maxHello {
		return hello, status.Errorf(codes.InvalidArgument, "a hello of %d bytes, expected at most %d", n, maxHello)
	}
	if err := json.Unmarshal(in.pieces.Materialize(), &hello); err != nil {
		return hello, status.Errorf(codes.InvalidArgument, "the first message is no hello: %v", err)
	}
	return hello, nil
}

// park keeps a stream for Accept. It refuses a second stream of the same neighbour until the first is broken: the
// second may be a stranger's. When too many streams wait, it drops that of the highest generation: the ring that this
// member opens next has a generation close to its own.
func (s *Server) park(key parkKey, r *receiver) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admissible(r); err != nil {
		return err
	}
	if old := s.parked[key]; key == s.taken || old != nil && old.stream.Context().Err() == nil {
		return status.Error(codes.Unavailable, "a stream of this neighbour is here already")
	} else if old != nil {
		s.drop(key, status.Error(codes.Unavailable, "another stream of this neighbour took its place"))
	}
	if len(s.parked) >= maxParked {
		furthest := key
		for k := range s.parked {
			if k.generation > furthest.generation {
				furthest = k
			}
		}
		full := status.Errorf(codes.ResourceExhausted, "%d streams wait here already", maxParked)
		if furthest == key {
			return full
		}
		s.drop(furthest, full)
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

// passOn reports a newer world to onWorld.
func (s *Server) passOn(hello Hello) {
	s.mu.Lock()
	newer := s.job == "" || hello.Generation > s.generation
	s.mu.Unlock()
	if newer && s.onWorld != nil && len(hello.World) > 0 {
		s.onWorld(hello.World)
	}
}

// refuse ends a stream that may not wait here. A stream of an older generation also gets the world record.
func (s *Server) refuse(stream grpc.ServerStream, why error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if status.Code(why) == codes.Aborted {
		stream.SetTrailer(metadata.Pairs(worldKey, string(s.world)))
	}
	return why
}
