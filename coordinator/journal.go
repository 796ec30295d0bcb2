package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"evenweave/internal/progress"
	"evenweave/internal/tensorboard"
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
	rate     func(step int64) float64
	curve    atomic.Pointer[eventFiles] // nil outside of a term, and where it cannot be opened
}

// eventFiles is what TensorBoard reads, behind a queue: its disk may stall.
type eventFiles struct {
	*progress.Detached
	files *tensorboard.Writer
}

func (j *journal) openEventFiles() {
	files, err := tensorboard.Open(filepath.Join(j.dir, tensorboard.Folder), j.rate)
	if err != nil {
		j.log.Warn("there are no event files for TensorBoard", "err", err)
		return
	}
	j.curve.Store(&eventFiles{progress.Detach(files), files})
}

// eventFilesWait bounds how long the end of a term waits for a disk that stalls.
const eventFilesWait = 2 * time.Second

func (j *journal) closeEventFiles() {
	curve := j.curve.Swap(nil)
	if curve == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), eventFilesWait)
	defer cancel()
	if !curve.Close(ctx) {
		j.log.Warn("the event files for TensorBoard lack the newest steps: the disk stalls")
	} else if err := curve.files.Close(); err != nil {
		j.log.Warn("the event files for TensorBoard lack steps", "err", err)
	}
}

// detailed passes what an evaluation shows on to the page and to TensorBoard. Any goroutine may call it.
type detailed struct {
	progress.DetailsObserver
	journal *journal
}

// ObserveDetails implements progress.DetailsObserver.
func (d detailed) ObserveDetails(at time.Time, shown progress.Details) {
	d.DetailsObserver.ObserveDetails(at, shown)
	if curve := d.journal.curve.Load(); curve != nil {
		curve.Observe(progress.Record{Time: at, Event: tensorboard.Pictures{Details: shown}})
	}
}

const metricsFile = "metrics.jsonl"

func (j *journal) path() string { return filepath.Join(j.dir, metricsFile) }

// emit reports an event.
func (j *journal) emit(e progress.Event) {
	r := progress.Record{Time: time.Now(), Event: e}
	j.observer.Observe(r)
	if j.metrics != nil {
		j.metrics.Observe(r)
	}
	if curve := j.curve.Load(); curve != nil {
		curve.Observe(r)
	}
}

// open takes over metrics.jsonl until close, unless ctx ends first; each gets what earlier leaders wrote.
func (j *journal) open(ctx context.Context, each func(progress.Record)) (err error) {
	if j.metrics, err = progress.OpenMetrics(ctx, j.path(), each); err == nil {
		j.openEventFiles()
	}
	return err
}

func (j *journal) close() {
	j.closeEventFiles()
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
