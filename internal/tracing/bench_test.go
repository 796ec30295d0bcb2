package tracing

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"syscall"
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/proto"
)

// BenchmarkStep is what a member's traces take of the processors per step, with the sending of their batches to a
// receiver that throws them away; the receiver's part, in the same process, is in it.
func BenchmarkStep(b *testing.B) {
	received := 0
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		received += int(n)
	}))
	defer server.Close()
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	b.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000000") // faster than any training, and nothing is left out
	tracer, err := Open(b.Context(), variables(nil), "j", "p", slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	tracer.Entered(job.World{Job: "j"}, 1)
	var before, after syscall.Rusage
	b.ReportAllocs()
	at, steps := time.Unix(1000, 0), 0
	began := syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	for b.Loop() {
		steps++
		at = at.Add(40 * time.Millisecond)
		tracer.Committed(&proto.Commit{Step: int64(steps), Generation: 2, TimeNanos: at.UnixNano(),
			ComputeNanos: 30e6, WaitNanos: 2e6, ReduceNanos: 3e6, UpdateNanos: 4e6, Assignment: []int32{3, 5}})
	}
	if err := tracer.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil || began != nil {
		b.Fatal(err, began)
	}
	used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(used)/1e3/float64(steps), "cpu-µs/step")
	b.ReportMetric(float64(received)/float64(steps), "bytes/step")
}
