package coordinator

import (
	"log/slog"
	"net"
	"syscall"
	"testing"

	"google.golang.org/grpc"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/proto"
)

// BenchmarkSave makes states of the built-in model's size durable: each is fetched over gRPC, verified, hashed, written
// and pruned. cpu-ms/op is what this process used for it, with the member's part of the transfer.
func BenchmarkSave(b *testing.B) {
	values := evenweave.Tensor{Name: "w", Type: evenweave.Float32, Shape: []int{111_470}, Role: evenweave.Trained}
	m, v := values, values // Adam's moments
	m.Name, m.Role, v.Name, v.Role = "m", evenweave.Kept, "v", evenweave.Kept
	layout, err := state.OfJob([]evenweave.Tensor{values, m, v})
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
	a := &archive{Store: store, layout: layout, samples: 1000, keep: 3, spared: func() []int64 { return nil },
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
		a.prune(b.Context(), 1)
		saves++
	}
	b.ReportMetric((processorTime(b)-began)*1000/float64(saves), "cpu-ms/op")
}

func processorTime(b *testing.B) (seconds float64) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
