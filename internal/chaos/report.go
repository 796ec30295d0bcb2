package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"evenweave/internal/job"
)

// NewText returns an observer that writes lines for people to w.
func NewText(w io.Writer) Observer { return &text{w: w} }

type text struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *text) printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, format, args...)
}

func (t *text) Scheduled(faults []Fault) {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = "  " + f.String() + "\n"
	}
	t.printf("%d faults:\n%s", len(faults), strings.Join(lines, ""))
}

func (t *text) Running(dir string, underFaults bool) {
	how := "calm run"
	if underFaults {
		how = "run under faults"
	}
	t.printf("%s in %s\n", how, dir)
}

func (t *text) Injected(i Injection) {
	if i.Skipped != "" {
		t.printf("  skipped      %v: %s\n", i.Fault, i.Skipped)
		return
	}
	t.printf("  %s  at step %d, generation %d: %s %s %s%s\n", i.Time.Format("15:04:05.000"), i.At, i.Generation, i.Kind,
		i.Way, strings.Join(i.Targets, ", "), lasting(i.For))
}

func (t *text) Warned(message string) { t.printf("warning: %s\n", message) }

func lasting(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf(" for %v", d)
}

func (t *text) Compared(o *Outcome) {
	a := o.Account
	var b strings.Builder
	fmt.Fprintf(&b, "\nrecoveries, in ms since the fault\n  %-12s %8s %10s %8s %13s\n", "fault", "detect", "new world",
		"state", "first commit")
	for _, r := range a.Recoveries {
		fmt.Fprintf(&b, "  %-12s %8s %10s %8s %13s  %s\n", strings.TrimSpace(string(r.Kind)+" "+r.Way), ms(r.Detect),
			ms(r.World), ms(r.State), ms(r.Commit), strings.Join(r.Targets, ", "))
	}
	for _, s := range a.Summaries() {
		fmt.Fprintf(&b, "  %-12s p50 %s, p90 %s, p99 %s\n", s.Name, ms(s.P50), ms(s.P90), ms(s.P99))
	}
	fmt.Fprintf(&b, "\ngoodput %.1f%%: %d commits, %d of them repeated, median step %s ms, %.1f s from the first to "+
		"the last\n", 100*a.Goodput(), a.Steps, a.Redone, ms(a.Step), a.Wall.Seconds())
	for _, k := range slices.Sorted(maps.Keys(a.Lost)) {
		name := string(k)
		if name == "" {
			name = "before any"
		}
		fmt.Fprintf(&b, "  lost after %-12s %6.2f s\n", name, a.Lost[k].Seconds())
	}
	for _, h := range a.Heals {
		fmt.Fprintf(&b, "healed: %s\n", job.Clean(h.Reason))
	}
	fmt.Fprintf(&b, "\n%-10s %s\n%-10s %s\n%-10s %s\n%-10s %d checkpoints, %d evaluations compared\n",
		"calm", o.Calm.Weights(), "chaos", o.Chaos.Weights(), "ledger", o.Chaos.Ledger(), "",
		o.Calm.Checkpoints(), o.Calm.Evaluations())
	for _, d := range o.Differences {
		fmt.Fprintf(&b, "DIFFERENT  %s\n", d)
	}
	if len(o.Differences) == 0 {
		b.WriteString("equal: weights, state, ledger, checkpoints and evaluations\n")
	}
	t.printf("%s", b.String())
}

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(d)/1e6)
}

// Summary is the distribution of one part of the recoveries.
type Summary struct {
	Name          string
	P50, P90, P99 time.Duration
}

// Summaries returns the distribution of each part. A part leaves out recoveries without a report of it.
func (a Account) Summaries() []Summary {
	parts := []struct {
		name string
		of   func(Recovery) time.Duration
	}{
		{"detect", func(r Recovery) time.Duration { return r.Detect }},
		{"new world", func(r Recovery) time.Duration { return r.World }},
		{"state", func(r Recovery) time.Duration { return r.State }},
		{"first commit", func(r Recovery) time.Duration { return r.Commit }},
	}
	out := make([]Summary, len(parts))
	for i, part := range parts {
		var times []time.Duration
		for _, r := range a.Recoveries {
			if d := part.of(r); d > 0 {
				times = append(times, d)
			}
		}
		out[i] = Summary{part.name, percentile(times, 50), percentile(times, 90), percentile(times, 99)}
	}
	return out
}

// NewJSON returns an observer that writes a line of JSON for each event: schedule, run, fault, recovery, chaos.
func NewJSON(w io.Writer) Observer { return &lines{w: w} }

type lines struct {
	mu sync.Mutex
	w  io.Writer
}

type fields map[string]any

func (l *lines) put(event string, f fields) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f["event"] = event
	if _, ok := f["time"]; !ok {
		f["time"] = time.Now()
	}
	_ = json.NewEncoder(l.w).Encode(f)
}

func faultFields(f Fault) fields {
	return fields{"at_step": f.Step, "after_ms": f.After.Milliseconds(), "fault": f.Kind, "way": f.Way,
		"ranks": f.Ranks, "for_ms": f.For.Milliseconds()}
}

func (l *lines) Scheduled(faults []Fault) {
	for _, f := range faults {
		l.put("schedule", faultFields(f))
	}
}

func (l *lines) Running(dir string, underFaults bool) {
	l.put("run", fields{"dir": dir, "under_faults": underFaults})
}

func (l *lines) Warned(message string) { l.put("warning", fields{"message": message}) }

func (l *lines) Injected(i Injection) {
	f := faultFields(i.Fault)
	f["targets"], f["generation"], f["step"], f["skipped"] = i.Targets, i.Generation, i.At, i.Skipped
	if !i.Time.IsZero() {
		f["time"] = i.Time
	}
	l.put("fault", f)
}

func (l *lines) Compared(o *Outcome) {
	milli := func(d time.Duration) float64 { return float64(d) / 1e6 }
	for _, r := range o.Account.Recoveries {
		l.put("recovery", fields{"fault": r.Kind, "way": r.Way, "targets": r.Targets, "injected": r.Time,
			"generation": r.Generation,
			"detect_ms":  milli(r.Detect), "world_ms": milli(r.World), "state_ms": milli(r.State),
			"commit_ms": milli(r.Commit)})
	}
	lost := fields{}
	for k, d := range o.Account.Lost {
		lost[string(k)] = d.Seconds()
	}
	percentiles := fields{}
	for _, s := range o.Account.Summaries() {
		percentiles[s.Name] = []float64{milli(s.P50), milli(s.P90), milli(s.P99)}
	}
	l.put("chaos", fields{"equal": len(o.Differences) == 0, "differences": o.Differences,
		"weights_sha256": o.Chaos.Weights(), "calm_weights_sha256": o.Calm.Weights(),
		"ledger": o.Chaos.Ledger(), "checkpoints": o.Calm.Checkpoints(), "evaluations": o.Calm.Evaluations(),
		"recoveries":     len(o.Account.Recoveries),
		"p50_p90_p99_ms": percentiles, "goodput": o.Account.Goodput(), "lost_seconds": lost,
		"wall_seconds": o.Account.Wall.Seconds(), "median_step_ms": milli(o.Account.Step),
		"commits": o.Account.Steps, "redone": o.Account.Redone, "heals": len(o.Account.Heals)})
}
