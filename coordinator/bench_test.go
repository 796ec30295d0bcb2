package coordinator

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/proto"
)

// BenchmarkSave makes states of the built-in model's size durable: each is fetched over gRPC, verified, hashed, written
// and pruned. cpu-ms/op is what this process used for it, with the member's part of the transfer.
func BenchmarkSave(b *testing.B) {
	layout, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Float32, Shape: []int{334_852},
		Role: evenweave.Trained}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := state.New(layout, 1000)
	s.Step = 10
	held := state.Seal(s)
	member, serves := grpc.NewServer(), make(chan struct{})
	proto.RegisterMemberServer(member, holds{state: held})
	go func() { defer close(serves); _ = member.Serve(l) }()
	over := security.For(nil)
	d := &dialer{pool: &proto.Pool{Options: over.Options(security.Worker)}, over: over, job: "job", layout: layout,
		samples: 1000, keys: func(string) []string { return nil }}
	defer func() { d.pool.Close(); member.Stop(); <-serves }()
	store, err := checkpoint.Open(b.TempDir(), checkpoint.Options{})
	if err != nil {
		b.Fatal(err)
	}
	a := &archive{Store: store, layout: layout, samples: 1000, keep: 3, spared: func() []int64 { return []int64{} },
		log: slog.New(slog.DiscardHandler)}
	j := job.Job{Spec: job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 1000}}
	b.ReportAllocs()
	began, saves := processorTime(b), 0
	for term := int64(1); b.Loop(); term++ {
		stream, err := d.fetch(b.Context(), "a", l.Addr().String(), 10, string(held.SHA256[:]))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := a.write(b.Context(), j, term, stream); err != nil {
			b.Fatal(err)
		}
		a.prune(b.Context())
		saves++
	}
	b.ReportMetric((processorTime(b)-began)*1000/float64(saves), "cpu-ms/op")
}

// BenchmarkTakeover is what a coordinator that begins to lead does with the learning curve so far. MB/op is the most
// memory that this process has used.
func BenchmarkTakeover(b *testing.B) {
	const steps = 200_000
	c := onADirectory(b, &eventLog{})
	f, err := os.Create(c.journal.path())
	if err != nil {
		b.Fatal(err)
	}
	out := bufio.NewWriter(f)
	for n := 1; n <= steps && err == nil; n++ {
		x := 1 / float64(n)
		line, _ := progress.Encode(progress.Record{Time: time.Unix(1e9, int64(n)*3e7), Event: progress.Step{Step: n,
			Epoch: 1 + n/469, Loss: x + 0.1, Generation: 3, Workers: 4, Images: 128 * int64(n), Seconds: 0.03 + x,
			SamplesPerSecond: 128 / (0.03 + x), ComputeMS: 20 + x, ReduceMS: 4 - x, WaitMS: 2 + x, UpdateMS: 1 + x,
			Metrics: []progress.Metric{{Name: "accuracy", Value: 1 - x/3}}}})
		_, err = out.Write(line)
	}
	if err := errors.Join(err, out.Flush(), f.Close()); err != nil {
		b.Fatal(err)
	}
	began, times := processorTime(b), 0
	for b.Loop() {
		next := newCoordinator(c.Config, nil, c.archive.Store, c.archive.layout)
		closeJournal, err := next.openJournal(job.Spec{})
		if err != nil {
			b.Fatal(err)
		}
		<-next.journal.ready
		closeJournal()
		times++
	}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((processorTime(b)-began)*1e6/float64(times*steps), "cpu-s/1M-steps")
	b.ReportMetric(float64(u.Maxrss)/1024, "MB/op")
}

func processorTime(b *testing.B) (seconds float64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
