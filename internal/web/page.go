package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"evenweave/internal/progress"
	"evenweave/internal/regular"
)

// FileName is what pages keep in a run directory.
const FileName = "history.json"

const (
	maxFile   = 16 << 20         // bytes of it; about one is usual
	lookEvery = time.Second / 5  // whether something rare happened, which is saved at once
	saveEvery = 10 * time.Second // what happens all the time
	// Between two saves of what is rare there is so many times the time that one takes, because a checkpoint may come
	// each step. No disk is so slow that more than saveEvery is lost with a process.
	saveShare = 100
)

// Page observes a job and shows it. Safe for concurrent use.
type Page struct {
	mu      sync.Mutex
	history *history
	streams chan struct{} // one entry an open stream
	over    chan struct{} // closed when streams shall end
}

var (
	_ progress.Observer        = (*Page)(nil)
	_ progress.MemberObserver  = (*Page)(nil)
	_ progress.DetailsObserver = (*Page)(nil)
)

// New returns a page of a job of which nothing is known yet.
func New() *Page {
	return &Page{history: newHistory(), streams: make(chan struct{}, maxStreams), over: make(chan struct{})}
}

// Finish ends all streams after what they lack, before their server is closed. It waits a moment for slow readers, and
// is called once.
func (p *Page) Finish(limit time.Duration) {
	close(p.over)
	late := time.After(limit)
	for range maxStreams {
		select {
		case p.streams <- struct{}{}:
		case <-late:
			return
		}
	}
}

// Observe implements progress.Observer.
func (p *Page) Observe(r progress.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.observe(r)
}

// ObserveMember implements progress.MemberObserver.
func (p *Page) ObserveMember(at time.Time, r progress.MemberReport) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.report(at, r)
}

// ObserveDetails implements progress.DetailsObserver.
func (p *Page) ObserveDetails(_ time.Time, d progress.Details) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.history.show(d)
}

// since returns what changed after c, encoded; nil if nothing did.
func (p *Page) since(c cursor) ([]byte, cursor, error) {
	p.mu.Lock()
	if c.changed == p.history.changed && c != (cursor{}) {
		p.mu.Unlock()
		return nil, c, nil
	}
	u, next := p.history.since(c)
	p.mu.Unlock() // encoding takes milliseconds
	data, err := json.Marshal(u)
	return data, next, err
}

// Recall adds what a run directory holds: what pages kept there, at once, then each record of its metrics.jsonl, by
// add, until done. An error says that nothing was kept that can be read.
func (p *Page) Recall(dir string) (add func(progress.Record), done func(), err error) {
	kept, err := readHistory(filepath.Join(dir, FileName))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.history.curve.step() > 0 { // this process led before, and knows all of it
		kept = nil
	}
	if kept != nil {
		err = p.history.restore(*kept)
	}
	totals, worlds := p.history.totals, p.history.worlds.total > 0
	var evaluations []progress.Evaluation // a missed one comes later than those after it
	take := func(n int) {
		slices.SortStableFunc(evaluations, func(a, b progress.Evaluation) int { return a.Step - b.Step })
		for _, e := range evaluations[:n] {
			p.history.evaluation(e)
		}
		evaluations = slices.Delete(evaluations, 0, n)
	}
	add = func(r progress.Record) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := r.Event.(type) {
		case progress.Step:
			p.history.observe(r)
		case progress.Evaluation:
			if evaluations = append(evaluations, e); len(evaluations) == 2*maxTail {
				take(maxTail)
			}
		}
	}
	return add, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		take(len(evaluations))
		if worlds {
			p.history.totals = totals
		}
		switch {
		case kept != nil:
			p.history.job.State, p.history.job.Ended = kept.Job.State, kept.Job.Ended
		case p.history.job.UUID == "" && p.history.job.Step > 0:
			p.history.job.State = "recorded" // by a build that kept the metrics only
		}
	}, err
}

func readHistory(path string) (*update, error) {
	data, err := regular.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var u update
	if err == nil {
		err = json.Unmarshal(data, &u)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what the page kept: %s: %w; without it the timeline begins now", path, err)
	}
	return &u, nil
}

// Keep writes the page's history into a run directory now and then, and once more before the function that it returns
// returns. Only the process that leads the job may call it.
func (p *Page) Keep(dir string, log *slog.Logger) (stop func()) {
	stopping, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		path, saved, at, took := filepath.Join(dir, FileName), 0, time.Now(), time.Duration(0)
		for last := false; !last; {
			select {
			case <-tick.C:
			case <-stopping:
				last = true
			}
			rare, since := p.rare(), time.Since(at)
			if !last && (since < min(saveShare*took, saveEvery) || rare == saved && since < saveEvery) {
				continue
			}
			began := time.Now()
			data, _, err := p.since(cursor{})
			if err = errors.Join(err, regular.Replace(path, data)); err != nil {
				log.Debug("keeping the page's history", "err", err)
			}
			saved, at, took = rare, time.Now(), time.Since(began)
		}
	}()
	return func() { close(stopping); <-stopped }
}

// rare counts what happens now and then.
func (p *Page) rare() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.history
	return h.worlds.total + h.recoveries.total + h.notes.total + h.checkpoints.total + h.waits.total + h.detailed
}
