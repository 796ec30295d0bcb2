package worker

import (
	"context"
	"errors"
	"math"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/serving"
	"evenweave/proto"
)

// Serve registers the Member service of an initialised loop.
func (l *Loop) Serve(s grpc.ServiceRegistrar) {
	proto.RegisterMemberServer(s, &server{replica: l.replica, report: l.report, job: l.Job.UUID,
		authorize: l.Authorize, streams: serving.NewRanges("states", maxStates)})
}

type server struct {
	proto.UnimplementedMemberServer
	replica *replica
	report  *report
	job     string
	streams *serving.Ranges

	authorize func(context.Context) error // of Loop
}

const maxStates = 4 // sent at the same time; members ask again

// fence refuses callers of another job: an old process, or one that found this address in another cluster.
func (s *server) fence(job string) error {
	if job != s.job {
		return status.Error(codes.FailedPrecondition, "this member works on another job")
	}
	return nil
}

// admit refuses callers that may not read states.
func (s *server) admit(ctx context.Context, job string) error {
	if err := s.fence(job); err != nil || s.authorize == nil {
		return err
	}
	return s.authorize(ctx)
}

func (s *server) Follow(r *proto.FollowRequest, stream grpc.ServerStreamingServer[proto.Status]) error {
	if err := s.fence(r.Job); err != nil {
		return err
	}
	var (
		after = r.AfterStep
		seen  <-chan struct{}
		sent  time.Time
	)
	for {
		st, changed := s.report.read(after)
		if n := len(st.Commits); n > 0 {
			after = st.Commits[n-1].Step
		} else if st.Step >= 0 && st.Step < after {
			after = st.Step // the state went back to a checkpoint
		}
		if changed != seen || len(st.Commits) > 0 || time.Since(sent) > signOfLife {
			if err := stream.Send(st); err != nil {
				return err
			}
			seen, sent = changed, time.Now()
			if len(st.Commits) > 0 && after < st.Step { // there are more
				continue
			}
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(s.report.pace()):
		}
	}
}

const (
	shortestPace = 50 * time.Millisecond // between messages that hold only commits
	signOfLife   = time.Second           // the longest between any two
	fewMembers   = 16                    // beyond, the pace grows with the world, so the coordinator gets no more
)

func (s *server) Probe(ctx context.Context, r *proto.ProbeRequest) (*proto.Status, error) {
	if err := s.admit(ctx, r.Job); err != nil {
		return nil, err
	}
	// From the report alone: the answer shows that this process lives, even while a long update holds the replica.
	now, _ := s.report.read(math.MaxInt64)
	st, _ := s.report.read(now.Step - 1)
	return st, nil
}

func (s *server) Acknowledge(_ context.Context, r *proto.AcknowledgeRequest) (*proto.AcknowledgeReply, error) {
	if err := s.fence(r.Job); err != nil {
		return nil, err
	}
	// A step beyond this member's cannot be durable: accepting it would drop states that are not saved yet.
	now, _ := s.report.read(math.MaxInt64)
	s.replica.acknowledge(min(r.Step, now.Step))
	s.report.acknowledged(s.replica.due)
	return &proto.AcknowledgeReply{}, nil
}

func (s *server) Blame(_ context.Context, r *proto.BlameRequest) (*proto.BlameReply, error) {
	if err := s.fence(r.Job); err != nil {
		return nil, err
	}
	return &proto.BlameReply{Events: s.report.blame()}, nil
}

func (s *server) State(r *proto.StateRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	if err := s.admit(stream.Context(), r.Job); err != nil {
		return err
	}
	end, err := s.streams.Begin(r.Offset, r.Length)
	if err != nil {
		return err
	}
	defer end()
	send := func(b *proto.Block) error {
		err := stream.Send(b)
		s.replica.updates.copying(r.Step)
		return err
	}
	return proto.SendBlocks(send, stateQuiet, s.pieces(stream.Context(), r))
}

func (s *server) Updates(r *proto.UpdatesRequest, stream grpc.ServerStreamingServer[proto.Update]) error {
	if err := s.admit(stream.Context(), r.Job); err != nil {
		return err
	}
	log := s.replica.updates // a spare reads no step while it fetches the copy
	return proto.SendWatched(stream.Send, stateQuiet, log.lastCopying, func(send func(*proto.Update) error) error {
		return log.send(stream.Context(), send)
	})
}

// pieces are the part of a state that is asked for: of one that this member holds, or is fetching. An empty piece is a
// sign of life, while the state is copied.
func (s *server) pieces(ctx context.Context, r *proto.StateRequest) proto.Pieces {
	end := int64(math.MaxInt64)
	if r.Length > 0 && r.Length < end-r.Offset {
		end = r.Offset + r.Length
	}
	if part := s.replica.partial.Load(); part != nil && part.Step == r.Step && (r.Quick || !part.Quick()) {
		return part.Pieces(ctx, r.Offset, end)
	}
	return func(yield func([]byte, error) bool) {
		held, done, err := s.replica.lend(r.Step, r.Quick, func(ready <-chan struct{}) error {
			return alive(ctx, ready, yield)
		})
		if errors.Is(err, errUnread) {
			return
		}
		if err != nil {
			yield(nil, status.Error(codes.NotFound, err.Error()))
			return
		}
		defer done()
		held.Pieces(r.Offset, end)(yield)
	}
}

var errUnread = errors.New("the reader is gone")

// alive waits until a copy is ready, and gives signs of life meanwhile.
func alive(ctx context.Context, ready <-chan struct{}, yield func([]byte, error) bool) error {
	for {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(signOfLife):
			if !yield(nil, nil) {
				return errUnread
			}
		}
	}
}
