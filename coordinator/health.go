package coordinator

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/serving"
	"evenweave/internal/telemetry"
)

const (
	doneLeading  = "done"
	opening      = "opening"
	openingLimit = 2 * time.Minute  // from one portion of what a new term reads to the next
	leadingLimit = time.Minute      // the term's loop comes round twice a second
	etcdLimit    = 15 * time.Second // reads every two seconds
)

// health is this process's condition for the pages. It is safe for concurrent use.
type health struct {
	mu      sync.Mutex
	doing   string
	beat    time.Time
	allowed time.Duration // how long the beat may be ago; 0: any time
	durable checkpoint.Entry
}

// does records what this process does from now on, and how soon it must report again.
func (v *health) does(doing string, allowed time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.doing, v.beat, v.allowed = doing, time.Now(), allowed
}

// moves records that the opening comes on. At other times it changes nothing: other goroutines read checkpoints too.
func (v *health) moves() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.doing == opening {
		v.beat = time.Now()
	}
}

func (v *health) saved(e checkpoint.Entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.durable = e
}

func (v *health) check(now time.Time) (line string, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if quiet := now.Sub(v.beat); v.allowed > 0 && quiet > v.allowed {
		return fmt.Sprintf("%s, but stuck for %v", v.doing, quiet.Round(time.Second)), false
	}
	return v.doing, true
}

// ready reports whether this process leads, stands by for a leader, or has led the job to its end.
func (c *Coordinator) ready(now time.Time) (line string, ok bool) {
	if doing, _ := c.condition.check(now); doing == doneLeading {
		return doing, true
	}
	reporting := c.views.LastRead()
	switch {
	case reporting.IsZero():
		return "etcd has not answered yet", false
	case now.Sub(reporting) > etcdLimit:
		return fmt.Sprintf("etcd has not answered for %v", now.Sub(reporting).Round(time.Second)), false
	}
	view := c.views.Now()
	switch {
	case view.Job == nil || view.Leader == nil:
		return "no coordinator leads the job yet", false
	case view.Leader.ID != c.self.ID:
		return "standing by for " + view.Leader.ID, true
	}
	return c.condition.check(now)
}

// facts returns the present facts for metrics.
func (c *Coordinator) facts() telemetry.Facts {
	view := c.views.Now()
	c.condition.mu.Lock()
	defer c.condition.mu.Unlock()
	return telemetry.Facts{
		Leading: view.Leader != nil && view.Leader.ID == c.self.ID, Members: len(view.Members),
		Skipped:       len(view.Skipped),
		OtherProtocol: view.OtherProtocol(), DurableStep: c.condition.durable.Step,
		DurableAt: c.condition.durable.Manifest.Created,
	}
}

// download sends the newest valid checkpoint as a file, for where neither the directory nor a shell is at hand.
func (c *Coordinator) download(w http.ResponseWriter, r *http.Request) {
	newest, err := c.archive.Latest(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Disposition", "attachment; filename="+filepath.Base(newest.Path))
	http.ServeFile(w, r, newest.Path)
}

// Handler serves the coordinator's pages: /status (JSON); /checkpoint (the newest, as a file); /healthz fails when it
// is stuck; /readyz unless it leads or stands by.
func (c *Coordinator) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /status", c.status)
	mux.HandleFunc("GET /checkpoint", c.download)
	serving.AddProbes(mux, func() (string, bool) { return c.condition.check(time.Now()) },
		func() (string, bool) { return c.ready(time.Now()) })
	return mux
}
