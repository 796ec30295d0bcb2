package tracing

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	protobuf "google.golang.org/protobuf/proto"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// receiver takes spans by gRPC and by HTTP.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	spans    []*otlp.Span
	resource string
}

// Export implements collector.TraceServiceServer.
func (r *receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (
	*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range request.ResourceSpans {
		r.resource = of.Resource.String()
		for _, scope := range of.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var sent collector.ExportTraceServiceRequest
	body, err := io.ReadAll(request.Body)
	if err != nil || protobuf.Unmarshal(body, &sent) != nil || request.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	_, _ = r.Export(request.Context(), &sent)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// children lists the spans within one, in order of their beginning, as "name seconds".
func (r *receiver) children(of *otlp.Span) (all []string) {
	for _, s := range r.spans {
		if string(s.ParentSpanId) == string(of.SpanId) && string(s.TraceId) == string(of.TraceId) {
			all = append(all, s.Name+" "+time.Duration(s.EndTimeUnixNano-s.StartTimeUnixNano).String())
		}
	}
	return all
}

func (r *receiver) roots(name string) (all []*otlp.Span) {
	for _, s := range r.spans {
		if s.Name == name && len(s.ParentSpanId) == 0 {
			all = append(all, s)
		}
	}
	return all
}

func variables(set map[string]string) func(string) string {
	return func(name string) string { return set[name] }
}

// story is a job of two steps, a member that is lost, and a step of the next world.
func story(t *Tracer) {
	at := func(ms int) time.Time { return time.Unix(1000, 0).Add(time.Duration(ms) * time.Millisecond) }
	see := func(ms int, e progress.Event) { t.Observe(progress.Record{Time: at(ms), Event: e}) }
	step := func(n int, generation uint64) progress.Step {
		return progress.Step{Step: n, Generation: generation, Workers: 2, ComputeMS: 5, WaitMS: 1, ReduceMS: 2,
			UpdateMS: 2}
	}
	see(0, progress.World{Generation: 1, Size: 2})
	see(10, step(1, 1))
	see(20, step(2, 1))
	t.ObserveMember(at(50), progress.MemberReport{ID: "a", Generation: 1, Phase: "waiting",
		Wait: &progress.Wait{For: "b"}})
	see(120, progress.World{Generation: 2, Size: 2, Reason: "b is gone"})
	t.ObserveMember(at(150), progress.MemberReport{ID: "c", Generation: 2, Phase: "fetch"})
	t.ObserveMember(at(190), progress.MemberReport{ID: "c", Generation: 2, Phase: "open"})
	see(320, step(3, 2))
	see(330, progress.World{Generation: 3, Size: 3, Planned: true})
	see(340, step(4, 3))
}

// A receiver of either protocol gets a trace of each step with its phases, and one of the recovery with its parts.
func TestAReceiverGetsStepsAndRecoveries(t *testing.T) {
	for _, protocol := range []string{"grpc", "http/protobuf", ""} {
		r := &receiver{}
		endpoint := ""
		if protocol == "grpc" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			collector.RegisterTraceServiceServer(server, r)
			go func() { _ = server.Serve(l) }()
			t.Cleanup(server.Stop)
			endpoint = "http://" + l.Addr().String()
		} else {
			server := httptest.NewServer(r)
			t.Cleanup(server.Close)
			endpoint = server.URL
		}
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
		t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment=test")
		tracer, err := Open(t.Context(), variables(map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}), "j",
			"p",
			slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		story(tracer)
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		steps, recoveries := r.roots("step"), r.roots("recovery")
		if len(steps) != 4 || len(recoveries) != 1 || !strings.Contains(r.resource, "deployment") ||
			!strings.Contains(r.resource, `"evenweave"`) {
			t.Fatalf("%s: %d steps, %d recoveries, resource %s", protocol, len(steps), len(recoveries), r.resource)
		}
		if got := strings.Join(r.children(steps[0]), ", "); got != "compute 5ms, wait 1ms, reduce 2ms, update 2ms" {
			t.Errorf("%s: a step has %s", protocol, got)
		}
		if got := strings.Join(r.children(recoveries[0]), ", "); got != "detect 30ms, publish 70ms, open 190ms" {
			t.Errorf("%s: the recovery has %s", protocol, got)
		}
		for _, s := range r.spans {
			if s.Name == "open" && strings.Join(r.children(s), ", ") != "fetch 40ms" {
				t.Errorf("%s: opening has %v", protocol, r.children(s))
			}
		}
		t.Logf("%q: %d spans; %s", protocol, len(r.spans), recoveries[0])
	}
}

// What a member sends of a step is in the trace that the coordinator's view of it is in, with the member's own phases.
func TestAMembersPhasesAreInTheTraceOfTheStep(t *testing.T) {
	r := &receiver{}
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	open := func(process string) *Tracer {
		tracer, err := Open(t.Context(), variables(nil), "j", process, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return tracer
	}
	coordinator, member := open("coordinator"), open("w1")
	coordinator.Observe(progress.Record{Event: progress.Start{UUID: "u"}})
	member.Entered(job.World{Job: "u"}, 1)
	for step := range 3 {
		coordinator.Observe(progress.Record{Time: time.Unix(1000, 0), Event: progress.Step{Step: step, Generation: 2}})
		member.Committed(&proto.Commit{Step: int64(step), Generation: 2, Assignment: []int32{3, 5},
			TimeNanos: time.Unix(1000, 0).UnixNano(), ComputeNanos: 7e6, WaitNanos: 2e6, ReduceNanos: 1e6,
			UpdateNanos: 4e6})
	}
	for _, tracer := range []*Tracer{coordinator, member} {
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(r.resource, `"w1"`) {
		t.Errorf("the last resource does not name the member: %s", r.resource)
	}
	steps, members, traces := r.roots("step"), r.roots("member step"), map[string]bool{}
	if len(steps) != 3 || len(members) != 3 {
		t.Fatalf("%d steps, %d of members", len(steps), len(members))
	}
	for i, s := range members {
		if got := strings.Join(r.children(s), ", "); got != "compute 7ms, wait 2ms, reduce 1ms, update 4ms" {
			t.Errorf("a member's step has %s", got)
		}
		if string(s.TraceId) != string(steps[i].TraceId) || string(s.SpanId) == string(steps[i].SpanId) {
			t.Errorf("step %d is in the traces %x and %x", i, s.TraceId, steps[i].TraceId)
		}
		if about := fmt.Sprint(s.Attributes); !strings.Contains(about, "micro_batches") ||
			!strings.Contains(about, "int_value:5") {
			t.Errorf("step %d: %s", i, about)
		}
		traces[string(s.TraceId)] = true
	}
	if len(traces) != 3 {
		t.Errorf("three steps are in %d traces", len(traces))
	}
}

// A receiver that hangs holds nothing up; what it did not take is counted.
func TestAReceiverThatHangs(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); server.Close() })
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	tracer, err := Open(t.Context(), variables(nil), "j", "p", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for range 20_000 {
		tracer.Observe(progress.Record{Time: time.Now(), Event: progress.Step{Generation: 1}})
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tracer.Close(ended); err == nil || !strings.Contains(err.Error(), "100000 of 100000 spans") {
		t.Error(err)
	}
}

func TestWanted(t *testing.T) {
	for _, is := range []struct {
		set  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, true},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, true},
		{map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, true},
		{map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, false},
		{map[string]string{"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, false},
	} {
		if got := Wanted(variables(is.set)); got != is.want {
			t.Errorf("%v: %v", is.set, got)
		}
	}
	if _, err := Open(t.Context(), variables(map[string]string{"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}), "", "",
		nil); err == nil ||
		!strings.Contains(err.Error(), `"smoke"`) {
		t.Errorf("an unknown protocol: %v", err)
	}
}
