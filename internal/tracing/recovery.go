package tracing

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"evenweave/internal/progress"
)

// recovery follows what happens between the last commit of a world that broke and the first of the next.
type recovery struct {
	mu         sync.Mutex
	generation uint64    // of the present world
	committed  time.Time // the last commit
	detected   time.Time // a member reported that its collective failed; zero: none has
	suspect    string
	broken     *progress.World // replaces a broken world, and has not committed yet
	published  time.Time
	fetching   map[string]time.Time // by member, since
	fetched    []span
}

// Observe implements progress.Observer.
func (t *Tracer) Observe(r progress.Record) {
	t.recovery.mu.Lock()
	defer t.recovery.mu.Unlock()
	switch e := r.Event.(type) {
	case progress.Start:
		t.place.job = e.UUID
	case progress.Step:
		step := stepSpan(r.Time, e)
		t.record(inStep(t.place.job, e.Generation, int64(e.Step)), step)
		if w := t.recovery.broken; w != nil && e.Generation >= w.Generation {
			t.record(context.Background(), t.recovery.span(step.begin, e))
			t.recovery.reset()
		}
		if e.Generation >= t.recovery.generation {
			t.recovery.committed, t.recovery.generation = r.Time, e.Generation
		}
	case progress.World:
		t.recovery.enter(r.Time, e)
	}
}

// stepSpan is a step that was committed at a time: its phases follow one another, in the slowest rank.
func stepSpan(committed time.Time, e progress.Step) span {
	s := span{name: "step", end: committed, attributes: []attribute.KeyValue{
		attribute.Int("evenweave.step", e.Step), attribute.Int("evenweave.epoch", e.Epoch),
		attribute.Int64("evenweave.generation", int64(e.Generation)), attribute.Int("evenweave.world_size", e.Workers),
		attribute.Float64("evenweave.loss", e.Loss)}}
	return s.of(milliseconds(e.ComputeMS), milliseconds(e.WaitMS), milliseconds(e.ReduceMS), milliseconds(e.UpdateMS))
}

// of is the span with the phases of a step within it. They follow one another, and the last ends with it.
func (s span) of(compute, wait, reduce, update time.Duration) span {
	at := s.end.Add(-compute - wait - reduce - update)
	s.begin = at
	for i, took := range []time.Duration{compute, wait, reduce, update} {
		end := at.Add(took)
		s.within = append(s.within, span{name: []string{"compute", "wait", "reduce", "update"}[i], begin: at, end: end})
		at = end
	}
	return s
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// enter notes a world, which replaces a broken one unless it was planned.
func (r *recovery) enter(at time.Time, w progress.World) {
	if !w.Planned && !r.committed.IsZero() {
		if r.broken == nil {
			r.published = at
		}
		r.broken = &w
	}
	r.generation = w.Generation
}

func (r *recovery) reset() {
	r.broken, r.detected, r.suspect, r.fetching, r.fetched = nil, time.Time{}, "", nil, nil
}

// maxFetches bounds the parts of a recovery.
const maxFetches = 1000

// ObserveMember implements progress.MemberObserver.
func (t *Tracer) ObserveMember(at time.Time, m progress.MemberReport) {
	r := &t.recovery
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Wait != nil && m.Generation == r.generation && r.broken == nil && r.detected.IsZero() {
		r.detected, r.suspect = at, m.Wait.For
	}
	since, was := r.fetching[m.ID]
	switch is := m.Phase == "fetch"; {
	case is && !was && r.broken != nil && len(r.fetching) < maxFetches:
		if r.fetching == nil {
			r.fetching = map[string]time.Time{}
		}
		r.fetching[m.ID] = at
	case !is && was:
		delete(r.fetching, m.ID)
		r.fetched = append(r.fetched[:min(len(r.fetched), maxFetches)], fetchSpan(m.ID, since, at))
	}
}

func fetchSpan(member string, begin, end time.Time) span {
	return span{name: "fetch", begin: begin, end: end,
		attributes: []attribute.KeyValue{attribute.String("evenweave.member", member)}}
}

// span is the whole recovery, at the first commit e, whose step began at a time.
func (r *recovery) span(stepBegan time.Time, e progress.Step) span {
	detected := r.detected
	if detected.IsZero() || detected.After(r.published) {
		detected = r.published // a probe found it before a member did
	}
	opened := stepBegan
	if opened.Before(r.published) {
		opened = r.published
	}
	for id, since := range r.fetching {
		r.fetched = append(r.fetched, fetchSpan(id, since, opened))
	}
	slices.SortStableFunc(r.fetched, func(a, b span) int { return cmp.Or(a.begin.Compare(b.begin)) })
	return span{name: "recovery", begin: r.committed, end: opened, attributes: []attribute.KeyValue{
		attribute.Int64("evenweave.generation", int64(e.Generation)), attribute.Int("evenweave.step", e.Step),
		attribute.String("evenweave.reason", r.broken.Reason), attribute.String("evenweave.suspect", r.suspect),
	}, within: []span{
		{name: "detect", begin: r.committed, end: detected},
		{name: "publish", begin: detected, end: r.published},
		{name: "open", begin: r.published, end: opened, within: r.fetched},
	}}
}
