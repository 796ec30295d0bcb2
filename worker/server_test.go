package worker

import (
	"context"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/serving"
	"evenweave/proto"
)

// served is a member's service over a state after 20 steps, of which 5, 10, 15 and 20 are due and agreed.
func served(t *testing.T, model evenweave.Model) *server {
	t.Helper()
	j := job.Job{UUID: "secret-uuid", Spec: job.Spec{Samples: 300, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 10,
		Steps: 100}, CheckpointEvery: 5}
	r, err := newReplica(j, model)
	s := &server{replica: r, report: newReport("w1", j.UUID), job: j.UUID,
		streams: serving.NewRanges("states", maxStates)}
	r.known = true
	for err == nil && r.step < 20 {
		r.step++
		if r.expected, err = r.fingerprint(); err == nil && j.Due(r.step) {
			keep(r)
			r.verify(r.expected, 1)
		}
		s.report.commit(&proto.Commit{Step: r.step}, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keep copies the live state as a due one.
func keep(r *replica) {
	var tasks sync.WaitGroup
	r.keep(&tasks)
	tasks.Wait()
}

// gated is a model whose update waits until the test lets it go on.
type gated struct {
	*example.Softmax
	entered, gate chan struct{}
}

func (g gated) Update([][]float32, int64) error {
	close(g.entered)
	<-g.gate
	return nil
}

// A probe asks whether this process lives: its answer must not wait for the optimizer.
func TestProbeIsAnsweredDuringAnUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := gated{example.NewSoftmax(), make(chan struct{}), make(chan struct{})}
		s := served(t, m)
		updated := make(chan error, 1)
		samples := make([]int32, 32)
		for i := range samples {
			samples[i] = int32(i)
		}
		go func() { updated <- s.replica.update(0, samples, nil, nil) }()
		<-m.entered
		begun := time.Now()
		for range 10 {
			st, err := s.Probe(t.Context(), &proto.ProbeRequest{Job: s.job})
			if err != nil || st.Step != 20 || len(st.Commits) != 1 || st.Commits[0].Step != 20 {
				t.Fatalf("got %v, %v, expected step 20 and its commit", st, err)
			}
			time.Sleep(time.Second) // virtual: the update takes ten
		}
		if _, ok := healthOf(s.report); !ok || time.Since(begun) != 10*time.Second {
			t.Error("an update of 10 s made the member unhealthy, or a probe wait")
		}
		close(m.gate)
		if err := <-updated; err != nil {
			t.Fatal(err)
		}
	})
}

func healthOf(r *report) (string, bool) { return r.health(time.Now()) }

// An acknowledgement beyond this member's step counts only up to that step.
func TestForgedAcknowledgementsAreClamped(t *testing.T) {
	for _, c := range []struct{ step, durable int64 }{{-1, 0}, {math.MinInt64, 0}, {10, 10}, {1 << 62, 20},
		{math.MaxInt64, 20}} {
		s := served(t, example.NewSoftmax())
		s.replica.step = 25 // committed, due, and not reported yet
		keep(s.replica)
		if _, err := s.Acknowledge(t.Context(), &proto.AcknowledgeRequest{Job: s.job, Step: c.step}); err != nil {
			t.Fatal(err)
		}
		if got := s.replica.durableStep(); got != c.durable {
			t.Errorf("acknowledged step %d: %d is durable, expected %d", c.step, got, c.durable)
		}
		if n, _ := s.replica.outstanding(); n < 1 || s.replica.snapshots[25] == nil {
			t.Errorf("acknowledged step %d: the due state of step 25 is gone", c.step)
		}
	}
}

func TestStrangersLearnNothing(t *testing.T) {
	s := served(t, example.NewSoftmax())
	_, probe := s.Probe(t.Context(), &proto.ProbeRequest{})
	_, acknowledge := s.Acknowledge(t.Context(), &proto.AcknowledgeRequest{})
	_, blame := s.Blame(t.Context(), &proto.BlameRequest{})
	for name, err := range map[string]error{
		"Probe": probe, "Acknowledge": acknowledge, "Blame": blame, "Follow": s.Follow(&proto.FollowRequest{}, nil),
		"State": s.State(&proto.StateRequest{}, &blocks{ctx: t.Context()}),
	} {
		if status.Code(err) != codes.FailedPrecondition || strings.Contains(err.Error(), "secret") ||
			strings.Contains(err.Error(), "w1") {
			t.Errorf("%s: got %v, expected a refusal that names nothing", name, err)
		}
	}
}

// blocks is a State stream whose reader takes a number of blocks, one every pause, and then no more.
type blocks struct {
	grpc.ServerStream
	ctx   context.Context
	take  chan struct{}
	bytes int
}

func (b *blocks) Context() context.Context { return b.ctx }

func (b *blocks) Send(m *proto.Block) error {
	select {
	case <-b.take:
		b.bytes += len(m.Data)
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// Readers that do not read share one copy, are few, and are given up; a slow reader is not.
func TestStatesAreSentToFewAndToActiveReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := served(t, example.NewSoftmax())
		ctx, end := context.WithCancel(t.Context()) // of the streams, which gRPC ends with their handlers
		ended, begun := make(chan error, 800), time.Now()
		for range 800 {
			go func() { ended <- s.State(&proto.StateRequest{Job: s.job, Step: 20}, &blocks{ctx: ctx}) }()
		}
		synctest.Wait()
		for range 800 - maxStates {
			if err := <-ended; status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("got %v, expected ResourceExhausted", err)
			}
		}
		for range maxStates {
			if err := <-ended; status.Code(err) != codes.DeadlineExceeded {
				t.Fatalf("got %v, expected DeadlineExceeded", err)
			}
		}
		if took := time.Since(begun); took != stateQuiet {
			t.Errorf("given up after %v, expected %v", took, stateQuiet)
		}
		slow := &blocks{ctx: ctx, take: make(chan struct{})}
		go func() { ended <- s.State(&proto.StateRequest{Job: s.job, Step: 20}, slow) }()
		for done := false; !done; {
			time.Sleep(stateQuiet - time.Second)
			select {
			case slow.take <- struct{}{}:
			case err := <-ended:
				if done = true; err != nil {
					t.Errorf("a slow reader: %v", err)
				}
			}
		}
		if slow.bytes == 0 {
			t.Error("a slow reader got nothing")
		}
		end()
		synctest.Wait()
	})
}
