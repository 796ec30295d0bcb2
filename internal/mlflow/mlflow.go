// Package mlflow reports a job to an MLflow tracking server by its REST API: parameters, metrics by step, tags and how
// it ended. Training never waits for it: what the server does not take in time is left out, with a warning.
package mlflow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/progress"
)

const (
	maxPending = 20_000 // metrics that wait for the server; the oldest are left out
	maxBatch   = 1_000  // of one request, as the server allows
	maxPause   = time.Minute
)

// Config says where to report to, and what does not come with events.
type Config struct {
	URL        string
	Experiment string
	Params     map[string]string // at most maxParams
	Log        *slog.Logger
	Pause      time.Duration // between reports, and after the first failure; 0: a second
}

// Run is a job's run on the server. Its own goroutine makes the calls.
type Run struct {
	Config
	client client
	cancel context.CancelFunc
	wake   chan struct{}
	ending chan struct{} // closed by Close
	over   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex // never held during a call
	start   *progress.Start
	metrics []metric
	tags    []keyValue
	status  string // how the job ended; "": it has not
	lost    int
}

// Begin starts reporting. The caller must Close the run.
func Begin(cfg Config) *Run {
	if cfg.Pause == 0 {
		cfg.Pause = time.Second
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Run{Config: cfg, cancel: cancel, client: client{strings.TrimRight(cfg.URL, "/"), &http.Client{}},
		wake: make(chan struct{}, 1), ending: make(chan struct{}), over: make(chan struct{})}
	go r.report(ctx)
	return r
}

// Observe implements progress.Observer. It never waits.
func (r *Run) Observe(record progress.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := record.Time.UnixMilli()
	switch e := record.Event.(type) {
	case progress.Start:
		r.start, r.status = &e, ""
	case progress.Step:
		step := int64(e.Step)
		if e.Skipped == "" {
			r.add("train/loss", e.Loss, at, step)
			for _, m := range e.Metrics {
				r.add("train/"+m.Name, m.Value, at, step)
			}
		}
		r.add("world_size", float64(e.Workers), at, step)
		r.add("samples_per_second", e.SamplesPerSecond, at, step)
	case progress.Evaluation:
		for _, f := range e.Figures {
			r.add("test/"+f.Name, f.Value, at, int64(e.Step))
		}
		for _, f := range e.Holdout {
			r.add("holdout/"+f.Name, f.Value, at, int64(e.Step))
		}
	case progress.Failure:
		r.status = "FAILED"
	case progress.Done:
		r.status = "KILLED"
		if e.Complete {
			r.status = "FINISHED"
		}
		r.tags = append(r.tags, keyValue{"evenweave.weights_sha256", e.WeightsSHA256},
			keyValue{"evenweave.step", fmt.Sprint(e.Step)})
	default:
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// add queues a number; one that is not finite has no form in JSON.
func (r *Run) add(key string, value float64, at, step int64) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		return
	}
	r.metrics = append(r.metrics, metric{allowed(key), value, at, step})
	r.bound()
}

func (r *Run) bound() {
	if n := len(r.metrics) - maxPending; n > 0 {
		r.lost += n
		r.metrics = r.metrics[n:]
	}
}

// allowed is a name with the characters that MLflow allows.
func allowed(name string) string {
	return strings.Map(func(c rune) rune {
		if c < 128 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.ContainsRune("_-. /", c)) {
			return c
		}
		return '_'
	}, name)
}

// report sends what is queued, until Close: then once more, or until the context ends.
func (r *Run) report(ctx context.Context) {
	defer close(r.over)
	pause, failing, id := r.Pause, false, ""
	for {
		last := false
		select {
		case <-r.wake:
		case <-r.ending:
			last = true
		}
		err := r.send(ctx, &id)
		var refused *refusal
		if errors.As(err, &refused) && !refused.temporary() && id != "" {
			err = fmt.Errorf("%w: what it refuses is left out", err) // it would refuse it again
		}
		switch {
		case err == nil:
			pause, failing = r.Pause, false
		case !failing:
			r.Log.Warn("MLflow does not take the metrics; training goes on", "url", job.Clean(r.URL), "err", err)
			failing = true
		}
		if last {
			return
		}
		if err != nil {
			r.again()
		}
		select {
		case <-time.After(pause):
		case <-r.ending:
		}
		if err != nil {
			pause = min(2*pause, maxPause)
		}
	}
}

// again has the goroutine try what is left.
func (r *Run) again() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// send makes the calls that are due. id is the run's on the server, "" before there is one.
func (r *Run) send(ctx context.Context, id *string) error {
	r.mu.Lock()
	start := r.start
	r.mu.Unlock()
	if start == nil {
		return nil
	}
	if *id == "" {
		if err := r.open(ctx, id, start); err != nil {
			return err
		}
	}
	for {
		r.mu.Lock()
		n := min(len(r.metrics), maxBatch)
		batch, tags, status := r.metrics[:n:n], r.tags, r.status
		r.metrics, r.tags = r.metrics[n:], nil
		r.mu.Unlock()
		if n == 0 && len(tags) == 0 {
			return r.end(ctx, *id, status)
		}
		err := r.client.call(ctx, "runs/log-batch", map[string]any{"run_id": *id,
			"metrics": append([]metric{}, batch...),
			"tags":    append([]keyValue{}, tags...)}, nil)
		if err != nil {
			return r.keep(err, batch, tags)
		}
	}
}

// keep queues again what the server could not take, unless it never will.
func (r *Run) keep(err error, batch []metric, tags []keyValue) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if refused := (*refusal)(nil); errors.As(err, &refused) && !refused.temporary() {
		r.lost += len(batch)
		return err
	}
	r.metrics, r.tags = append(batch, r.metrics...), append(tags, r.tags...)
	r.bound()
	return err
}

// open finds or makes the run, and sends the parameters.
func (r *Run) open(ctx context.Context, id *string, start *progress.Start) error {
	experiment, err := r.client.experiment(ctx, r.Experiment)
	if err != nil {
		return err
	}
	run, err := r.client.run(ctx, experiment, start.Job, start.UUID, []keyValue{{"evenweave.backend", start.Backend}})
	if err != nil {
		return err
	}
	params := []keyValue{}
	for key, value := range r.Params {
		params = append(params, keyValue{allowed(key), value[:min(len(value), 500)]})
	}
	err = r.client.call(ctx, "runs/log-batch", map[string]any{"run_id": run, "params": params}, nil)
	var refused *refusal
	if errors.As(err, &refused) && !refused.temporary() { // a job that was extended has other values now
		r.Log.Warn("MLflow keeps the parameters that the run has", "err", err)
		err = nil
	}
	if err == nil {
		*id = run
	}
	return err
}

// end says how the job ended, once.
func (r *Run) end(ctx context.Context, id, status string) error {
	if status == "" {
		return nil
	}
	err := r.client.call(ctx, "runs/update", map[string]any{"run_id": id, "status": status,
		"end_time": time.Now().UnixMilli()}, nil)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.status == status {
			r.status = ""
		}
	}
	return err
}

// Close sends what is left, for as long as ctx allows. Its error says what the server lacks.
func (r *Run) Close(ctx context.Context) error {
	close(r.ending)
	select {
	case <-r.over:
	case <-ctx.Done():
		r.cancel()
		<-r.over
	}
	r.cancel()
	r.client.http.CloseIdleConnections()
	r.mu.Lock()
	defer r.mu.Unlock()
	if lacks := r.lost + len(r.metrics); lacks > 0 || r.status != "" && r.start != nil {
		return fmt.Errorf("MLflow at %s lacks %d values, or how the job ended", job.Clean(r.URL), lacks)
	}
	return nil
}
