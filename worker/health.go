package worker

import (
	"fmt"
	"net/http"
	"time"

	"evenweave/internal/serving"
)

const (
	restingLimit  = time.Minute // the loop runs several times a minute while it waits
	trainingLimit = 8           // deadlines of a step without progress; collectives fail much earlier
)

// progressed records progress. The member is healthy until the next, which must come within the given time.
func (r *report) progressed(within time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved, r.allowed = time.Now(), within
}

// advanced records a part of progress: a micro-batch, a block, an exchange. The same time is allowed again.
func (r *report) advanced() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.moved = time.Now()
}

// health returns what the member does, and whether it makes progress or waits for a stated reason.
func (r *report) health(now time.Time) (line string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	quiet := now.Sub(r.moved)
	line = fmt.Sprintf("generation %d, step %d, %s", r.status.Generation, r.status.Step, r.status.Phase)
	if ok = r.allowed == 0 || quiet <= r.allowed; !ok {
		line += fmt.Sprintf(" for %v without progress, %v at most is normal", quiet.Round(time.Second), r.allowed)
	}
	return line, ok
}

// openingPages are the pages of a worker that has no job yet or is loading it: alive, with the reason, but not ready.
func openingPages(metrics http.Handler) http.Handler {
	const doing = "waiting for the job, or loading it"
	return pages(metrics, func() (string, bool) { return doing, true },
		func() (string, bool) { return "not registered: " + doing, false })
}

// Handler serves the member's pages: /healthz fails when it neither makes progress nor waits for a stated reason,
// /readyz until it is registered; /metrics unless that is nil.
func (l *Loop) Handler(metrics http.Handler, registered func() bool) http.Handler {
	return pages(metrics, func() (string, bool) { return l.report.health(time.Now()) }, func() (string, bool) {
		if !registered() {
			return "not registered in etcd", false
		}
		return "registered", true
	})
}

func pages(metrics http.Handler, healthy, ready func() (string, bool)) http.Handler {
	mux := http.NewServeMux()
	serving.AddProbes(mux, healthy, ready)
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
	return mux
}
