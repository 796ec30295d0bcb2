package coordinator

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/internal/serving"
	"evenweave/proto"
)

// asked is the server's end of a Checkpoint call; each Send waits for the gate.
type asked struct {
	grpc.ServerStreamingServer[proto.Block]
	t             *testing.T
	gate, sending chan struct{}
}

func (a asked) Context() context.Context { return a.t.Context() }

func (a asked) Send(*proto.Block) error {
	if a.sending != nil {
		a.sending <- struct{}{}
	}
	<-a.gate
	return nil
}

// nothing is the image of a checkpoint that no test reads.
func nothing(io.Writer) error { return nil }

// Checkpoints go to members of this job, to a few at a time, and a refusal names neither the job nor a path.
func TestCheckpointsAreFencedAndBounded(t *testing.T) {
	dir := t.TempDir()
	store, err := checkpoint.Open(dir, checkpoint.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Save(t.Context(), &checkpoint.Manifest{Job: "mine", Step: 5}, []byte("state"),
		nothing); err != nil {
		t.Fatal(err)
	}
	leads := func() cluster.View { return cluster.View{Job: &job.Job{UUID: "mine"}} }
	s := &server{over: security.For(nil),
		store: store, log: slog.New(slog.DiscardHandler), view: leads,
		streams: serving.NewRanges("checkpoints", maxStreams),
	}
	open := make(chan struct{})
	close(open)
	for _, c := range []struct {
		job  string
		step int64
		want codes.Code
	}{{"mine", 5, codes.OK}, {"another", 5, codes.FailedPrecondition}, {"", 5, codes.FailedPrecondition},
		{"mine", 6, codes.NotFound}} {
		err := s.Checkpoint(&proto.CheckpointRequest{Job: c.job, Step: c.step}, asked{t: t, gate: open})
		if status.Code(err) != c.want {
			t.Errorf("job %q, step %d: %v, want %v", c.job, c.step, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), dir) || strings.Contains(err.Error(), "mine")) {
			t.Errorf("the refusal reveals too much: %v", err)
		}
	}
	gate, sending, ended := make(chan struct{}), make(chan struct{}), make(chan error)
	for range maxStreams {
		go func() {
			ended <- s.Checkpoint(&proto.CheckpointRequest{Job: "mine", Step: 5},
				asked{t: t, gate: gate, sending: sending})
		}()
		<-sending
	}
	if err := s.Checkpoint(&proto.CheckpointRequest{Job: "mine", Step: 5}, asked{t: t, gate: open}); status.Code(
		err) != codes.ResourceExhausted {
		t.Errorf("one stream too many: %v", err)
	}
	close(gate)
	for range maxStreams {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// exhausted opens no file.
type exhausted struct{ checkpoint.OS }

func (exhausted) Open(name string) (io.ReadSeekCloser, error) {
	return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
}

// A member asks again for a checkpoint that this process cannot read now; it is not damaged.
func TestACheckpointThatCannotBeReadIsThere(t *testing.T) {
	store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{FS: exhausted{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Save(t.Context(), &checkpoint.Manifest{Job: "mine", Step: 5}, []byte("state"),
		nothing); err != nil {
		t.Fatal(err)
	}
	s := &server{over: security.For(nil), store: store, log: slog.New(slog.DiscardHandler),
		view:    func() cluster.View { return cluster.View{Job: &job.Job{UUID: "mine"}} },
		streams: serving.NewRanges("checkpoints", maxStreams)}
	err = s.Checkpoint(&proto.CheckpointRequest{Job: "mine", Step: 5}, asked{t: t})
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "open") {
		t.Errorf("%v, want an error of this process that names no file", err)
	}
}
