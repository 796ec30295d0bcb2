package bench_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"evenweave/allreduce/bench"
	"evenweave/allreduce/grpclink"
)

// childVariable turns this test binary into a member of the benchmark that it runs.
const childVariable = "EVENWEAVE_TEST_BENCH_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := bench.Child(context.Background(), os.Stdin, os.Stdout); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// rows runs a benchmark and decodes what it prints.
func rows(t *testing.T, o bench.Options) []bench.Row {
	t.Helper()
	o.Output = "json"
	var out bytes.Buffer
	if err := bench.Run(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	var all []bench.Row
	for d := json.NewDecoder(&out); d.More(); {
		var r bench.Row
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if r.Event == "allreduce" {
			all = append(all, r)
		}
	}
	return all
}

func TestLoopbackProcesses(t *testing.T) {
	t.Setenv(childVariable, "1")
	for _, r := range rows(t, bench.Options{Workers: []int{3}, Bytes: []int{1000, 100_000}, Time: 20 * time.Millisecond,
		Secure: true, Pin: runtime.GOOS == "linux", Child: []string{os.Args[0]}}) {
		if r.Event != "allreduce" || r.Workers != 3 || r.Millis <= 0 || r.TCPMillis <= 0 || r.TLSMillis <= 0 ||
			r.UnixMillis <= 0 || r.TLSTimes <= 0 || r.Low > r.Millis ||
			r.Millis > r.High {
			t.Errorf("an impossible row: %+v", r)
		}
	}
}

// Options that the streams cannot carry are refused by name: beyond their window the members would wait for each other
// forever.
func TestWhatStreamsCannotCarryIsRefused(t *testing.T) {
	for want, o := range map[string]bench.Options{"--window": {Window: 64_000_000}, "--segment": {Segment: 1 << 20}} {
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, expected a refusal that names %s", o, err, want)
		}
	}
	if err := (bench.Options{Window: grpclink.MaxWindowBytes, Segment: grpclink.MaxSegmentBytes}).Check(); err != nil {
		t.Error(err)
	}
}

// In virtual time the cost model holds without noise: a sum takes at least the latency of its hops and the time of its
// bytes, and at most both and a little work.
func TestEmulatedTimeIsThatOfARing(t *testing.T) {
	for _, r := range rows(t, bench.Options{Workers: []int{2, 16, 64}, Bytes: []int{1024, 888_888}, Network: "wan"}) {
		hops := 2 * float64(r.Workers-1)
		latency, wire := hops*10, hops/float64(r.Workers)*float64(r.Bytes)*8/1e6 // ms
		if r.Millis < max(latency, wire) || r.Millis > (latency+wire)*1.1 {
			t.Errorf("%d members, %d bytes: %.2f ms, expected %.2f of latency and %.2f on the wire",
				r.Workers, r.Bytes, r.Millis, latency, wire)
		}
	}
}
