// Package tracing turns a job's events into OpenTelemetry traces: a trace for each step, with its phases as the
// coordinator sees them and as each member does, and one for each recovery, with its parts. It is on only where the
// standard OTEL_* variables say so, and the one home of OpenTelemetry.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Wanted says whether the variables ask for traces: OTEL_TRACES_EXPORTER is otlp, or an endpoint is named; unless
// OTEL_SDK_DISABLED is true or OTEL_TRACES_EXPORTER is none.
func Wanted(getenv func(string) string) bool {
	exporter := getenv("OTEL_TRACES_EXPORTER")
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") || exporter != "" && exporter != "otlp" {
		return false
	}
	return exporter == "otlp" || getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// newExporter follows OTEL_EXPORTER_OTLP_PROTOCOL; the libraries read the other variables.
func newExporter(ctx context.Context, getenv func(string) string) (sdk.SpanExporter, error) {
	const name = "OTEL_EXPORTER_OTLP_PROTOCOL"
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv(name)
	}
	switch protocol {
	case "grpc":
		return otlptracegrpc.New(ctx)
	case "", "http/protobuf":
		return otlptracehttp.New(ctx)
	}
	return nil, fmt.Errorf("%s is %q: expected grpc or http/protobuf", name, protocol)
}

// Tracer is a progress.Observer and progress.MemberObserver. It never blocks: the SDK's queue of
// OTEL_BSP_MAX_QUEUE_SIZE spans is bounded, and what does not fit is dropped and counted.
type Tracer struct {
	provider *sdk.TracerProvider
	spans    trace.Tracer
	exporter *counting
	ended    atomic.Int64
	recovery recovery
	place    place
}

// Open makes the exporter that the variables describe, for a process of a job: a member's ID, or "coordinator". The
// caller must Close the tracer.
func Open(ctx context.Context, getenv func(string) string, job, process string, log *slog.Logger) (*Tracer, error) {
	exporter, err := newExporter(ctx, getenv)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "evenweave"),
		// the variables come last: they win
		attribute.String("evenweave.job", job), attribute.String("service.instance.id", process)),
		resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("tracing: OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	c := &counting{SpanExporter: exporter, log: log}
	provider := sdk.NewTracerProvider(sdk.WithBatcher(c), sdk.WithResource(about), sdk.WithIDGenerator(generator{}))
	return &Tracer{provider: provider, spans: provider.Tracer("evenweave"), exporter: c}, nil
}

// Close sends what is queued, for as long as ctx allows. Its error says how many spans were lost.
func (t *Tracer) Close(ctx context.Context) error {
	err := t.provider.Shutdown(ctx)
	if lost := t.ended.Load() - t.exporter.sent.Load(); lost > 0 {
		return fmt.Errorf("tracing: %d of %d spans were not taken", lost, t.ended.Load())
	}
	return err
}

// span is a span that is over, and what is within it.
type span struct {
	name       string
	begin, end time.Time
	attributes []attribute.KeyValue
	within     []span
}

// record hands a finished span to the SDK.
func (t *Tracer) record(ctx context.Context, s span) {
	ctx, made := t.spans.Start(ctx, s.name, trace.WithTimestamp(s.begin), trace.WithAttributes(s.attributes...))
	for _, w := range s.within {
		t.record(ctx, w)
	}
	if made.IsRecording() { // not if OTEL_TRACES_SAMPLER leaves it out
		t.ended.Add(1)
	}
	made.End(trace.WithTimestamp(s.end))
}

// counting counts the spans that a receiver has taken, and warns once while it takes none.
type counting struct {
	sdk.SpanExporter
	log     *slog.Logger
	sent    atomic.Int64
	failing atomic.Bool
}

// ExportSpans implements sdk.SpanExporter.
func (c *counting) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.sent.Add(int64(len(spans)))
		c.failing.Store(false)
	} else if !c.failing.Swap(true) {
		c.log.Warn("traces are not taken; training goes on", "err", err)
	}
	return nil // the SDK would print it each time
}
