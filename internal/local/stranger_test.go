package local_test

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
	"evenweave/proto"
)

// stranger is a process that has registered itself and lies: all steps are committed, their states are due here, the
// job is over.
type stranger struct {
	proto.UnimplementedMemberServer
	status proto.Status
	zeros  *state.Sealed
	often  func() // after each status
}

func (s *stranger) Follow(_ *proto.FollowRequest, stream grpc.ServerStreamingServer[proto.Status]) error {
	for stream.Context().Err() == nil {
		if err := stream.Send(&s.status); err != nil {
			return err
		}
		s.often()
	}
	return nil
}

func (s *stranger) Probe(context.Context, *proto.ProbeRequest) (*proto.Status, error) {
	return &s.status, nil
}

func (s *stranger) State(_ *proto.StateRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	return proto.SendBlocks(stream.Send, time.Minute, s.zeros.Pieces(0, s.zeros.Size()))
}

func (s *stranger) Acknowledge(context.Context, *proto.AcknowledgeRequest) (*proto.AcknowledgeReply, error) {
	return &proto.AcknowledgeReply{}, nil
}

// TestAStrangerIsNotBelieved: a registered process that is in no world cannot end the job, nor have its state saved,
// nor write the curve. With the numerics of the job it is followed, and counts only about itself.
func TestAStrangerIsNotBelieved(t *testing.T) {
	const steps = 1000
	want := calmRun(t, steps)
	endpoint, dir := etcd(t), t.TempDir()
	c := startCoordinator(t, endpoint, dir, spec(steps))
	released := make(chan struct{})
	a := startWorker(endpoint, "a", gated(func(step int64) {
		if step >= steps/4 {
			<-released
		}
	}))
	world := await(t, c.events, "a world", anyOf[progress.World])
	start := await(t, c.events, "the start", anyOf[progress.Start])

	layout, err := state.OfJob(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	zeros := state.New(layout, spec(steps).Samples)
	zeros.Step = steps
	sealed := state.Seal(zeros)
	evil := &stranger{zeros: sealed}
	sent, enough := 0, sync.OnceFunc(func() { close(released) })
	evil.often = func() { // the stream and its queue hold a few only: most have been read
		if sent++; sent > 200 {
			enough()
		}
	}
	evil.status.Member, evil.status.Job, evil.status.Step = "evil", start.UUID, steps
	evil.status.Generation, evil.status.Holding, evil.status.Verdict = int64(world.Generation), true, "not finite"
	evil.status.Fingerprint = zeros.Fingerprint().String()
	evil.status.Held = &proto.HeldState{Step: steps, Sha256: sealed.SHA256[:], Generation: int64(world.Generation)}
	evil.status.Due = []*proto.HeldState{evil.status.Held}
	for step := int64(1); step <= steps; step++ {
		evil.status.Commits = append(evil.status.Commits, &proto.Commit{Step: step, Generation: int64(world.Generation),
			Workers: 1, Samples: 32, Loss: 7})
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	proto.RegisterMemberServer(server, evil)
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(l) })
	client, err := cluster.Dial([]string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(t.Context())
	record := job.Member{ID: "evil", Job: start.UUID, Address: l.Addr().String(), Numerics: "numerics",
		Protocol: job.Protocol, Leaving: true}
	running.Go(func() { cluster.NewMembership(client, record, ttl, slog.New(slog.DiscardHandler)).Run(ctx) })

	ended(t, "coordinator", c.done, nil)
	ended(t, "a", a.done, nil)
	leave()
	server.Stop()
	running.Wait()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	d := await(t, c.events, "the end", anyOf[progress.Done])
	if d.Fingerprint != want.Fingerprint || d.Step != steps || !d.Complete {
		t.Errorf("ended with %+v, a calm run with %+v", d, want)
	}
	wholeCurve(t, dir, steps)
	for _, e := range c.all {
		if s, ok := e.(progress.Step); ok && s.Loss == 7 {
			t.Fatalf("the stranger wrote step %d", s.Step)
		}
	}
}
