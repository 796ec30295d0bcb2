package tracing

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"evenweave/internal/job"
	"evenweave/proto"
)

// place is where in a job the process is. A member's loop alone uses its rank.
type place struct {
	job  string // its UUID
	rank int
}

// Entered notes the world that a member trains in.
func (t *Tracer) Entered(w job.World, rank int) { t.place = place{w.Job, rank} }

// Committed records the phases of a step as a member saw them, in the trace that the coordinator's view of the step is
// in. The member's loop calls it.
func (t *Tracer) Committed(c *proto.Commit) {
	s := span{name: "member step", end: time.Unix(0, c.TimeNanos), attributes: []attribute.KeyValue{
		attribute.Int64("evenweave.step", c.Step), attribute.Int64("evenweave.generation", c.Generation),
		attribute.Int("evenweave.rank", t.place.rank)}}
	if t.place.rank < len(c.Assignment) {
		s.attributes = append(s.attributes, attribute.Int("evenweave.micro_batches",
			int(c.Assignment[t.place.rank])))
	}
	t.record(inStep(t.place.job, uint64(c.Generation), c.Step), s.of(time.Duration(c.ComputeNanos),
		time.Duration(c.WaitNanos), time.Duration(c.ReduceNanos), time.Duration(c.UpdateNanos)))
}

type traceKey struct{}

// inStep is a context in which spans belong to the trace of a step: all processes find its ID by themselves, so what
// each sends meets at the receiver, and a sampler by ID takes all of it or nothing.
func inStep(job string, generation uint64, step int64) context.Context {
	if job == "" {
		return context.Background()
	}
	of := fmt.Sprintf("%s step %d of generation %d", job, step, generation)
	sum := sha256.Sum256([]byte(of))
	return context.WithValue(context.Background(), traceKey{}, trace.TraceID(sum[:16]))
}

// generator makes IDs at random, but for the trace that a context names.
type generator struct{}

// NewIDs implements sdk.IDGenerator.
func (g generator) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	id, ok := ctx.Value(traceKey{}).(trace.TraceID)
	for !ok || !id.IsValid() {
		binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
		binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
		ok = true
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdk.IDGenerator.
func (generator) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	for !id.IsValid() {
		binary.LittleEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}
