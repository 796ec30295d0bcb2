package coordinator

import (
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"evenweave/internal/progress"
)

// emitter takes events: [journal] is one.
type emitter interface{ emit(progress.Event) }

// journal passes events on to this process's observers, and to metrics.jsonl while a term has that file open: only the
// leader writes it.
type journal struct {
	dir      string
	observer progress.Observer
	log      *slog.Logger
	metrics  *progress.Metrics // nil outside of a term
	lacking  error             // what the file lacks
}

func (j *journal) path() string { return filepath.Join(j.dir, "metrics.jsonl") }

// emit reports an event.
func (j *journal) emit(e progress.Event) {
	r := progress.Record{Time: time.Now(), Event: e}
	j.observer.Observe(r)
	if j.metrics != nil {
		j.metrics.Observe(r)
	}
}

// open takes over metrics.jsonl, with what earlier leaders wrote, until close.
func (j *journal) open() (earlier []progress.Record, err error) {
	if j.metrics, err = progress.OpenMetrics(j.path()); err != nil {
		return nil, err
	}
	if earlier, _, err = progress.ReadMetrics(j.path()); err != nil {
		j.close()
	}
	return earlier, err
}

func (j *journal) close() {
	j.lacking = errors.Join(j.lacking, j.metrics.Close())
	j.metrics = nil
}

// sync makes the steps reported so far durable. A run that goes on from a checkpoint does not report the steps before
// it again.
func (j *journal) sync() {
	if err := j.metrics.Sync(); err != nil {
		j.log.Warn("the steps before a checkpoint may be lost to a crash of the machine", "err", err)
	}
}
