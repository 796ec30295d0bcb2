package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

// Watcher keeps the newest View and signals each change of it. It is safe for concurrent use.
type Watcher struct {
	log      *slog.Logger
	mu       sync.Mutex
	view     View
	lastRead time.Time // when etcd last answered
	away     error     // why it does not answer now; nil: it does
	claim    *job.World
	fromPeer bool  // view.World is from a peer: etcd was away
	highest  int64 // number of the coordinator's records
	changed  chan struct{}
	ask      chan struct{} // wakes Run up to read at once
	logged   map[string]bool
}

// NewWatcher returns a watcher with an empty view; Run fills it. The log, which may be nil, names what cannot be read,
// once for each change.
func NewWatcher(log *slog.Logger) *Watcher {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{log: log, changed: make(chan struct{}), ask: make(chan struct{}, 1)}
}

// View returns the newest view and a channel that is closed when it changes.
func (w *Watcher) View() (View, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.view, w.changed
}

// LastRead returns when etcd last answered a read; zero: never.
func (w *Watcher) LastRead() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lastRead
}

// Err returns why etcd's records cannot be read now; nil: they can, or no read has ended yet.
func (w *Watcher) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.away
}

// Learn takes a world record from a peer, so that a member that reaches its peers but not etcd does not stay behind.
// etcd takes precedence over any peer: while etcd answers, Learn only starts a read at once. Learn ignores records that
// are invalid, older or of another job.
func (w *Watcher) Learn(world job.World) {
	if world.Validate() != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.newer(&world) {
		return
	}
	if w.away != nil {
		w.adopt(&world)
		return
	}
	w.claim = &world
	select {
	case w.ask <- struct{}{}:
	default:
	}
}

func (w *Watcher) newer(world *job.World) bool {
	return world != nil && w.view.Job != nil && w.view.Job.UUID == world.Job &&
		(w.view.World == nil || w.view.World.Generation < world.Generation)
}

func (w *Watcher) adopt(world *job.World) {
	w.view.World, w.fromPeer = world, true
	w.publish()
}

// takeClaim removes and returns the world that a peer has claimed. The read that follows confirms or refutes it.
func (w *Watcher) takeClaim() *job.World {
	w.mu.Lock()
	defer w.mu.Unlock()
	world := w.claim
	w.claim = nil
	return world
}

// missed records that etcd did not answer. From then on a peer's record counts.
func (w *Watcher) missed(err error, claim *job.World) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = err
	for _, world := range []*job.World{claim, w.claim} {
		if w.newer(world) {
			w.adopt(world)
		}
	}
	w.claim = nil
}

// accept has the records of a view that cannot be used stand as they were. Nor can those be used that are older than
// what has been read: somebody has put them back. An error: there is no job to go on with.
func (w *Watcher) accept(v *View, sealed bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.Job != nil && sealed && v.number < w.highest {
		v.spoil(fmt.Errorf("it has number %d, and %d was there before: an old record has been put back", v.number,
			w.highest))
	}
	w.highest = max(w.highest, v.number)
	if v.keepRecords(w.view); v.Job == nil && v.Spoilt() {
		return v.spoilt[0]
	}
	return nil
}

// set takes etcd's answer. Reads are linearizable: a world that a peer has sent before the read and that the answer
// lacks was never published.
func (w *Watcher) set(v View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastRead, w.away = time.Now(), nil
	if v.Revision == w.view.Revision && w.view.Revision != 0 && !w.fromPeer {
		return
	}
	w.view, w.fromPeer = v, false
	w.publish()
}

func (w *Watcher) publish() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// pollInterval bounds how stale a view can get if a watch falls silent without an error.
const pollInterval = 2 * time.Second

// maxReported bounds how many bad records of one view are logged.
const maxReported = 20

// Run keeps the view up to date until ctx ends; the caller owns the goroutine. While etcd is away the last view stays.
func (w *Watcher) Run(ctx context.Context, c *Client) {
	retry := 50 * time.Millisecond
	for ctx.Err() == nil {
		claim := w.takeClaim()
		v, err := c.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			err = w.accept(&v, c.over.Sealed())
		}
		if err != nil {
			w.missed(err, claim) // at once: finding the cause takes longer
			err = c.explain(ctx, err)
			w.missed(err, nil)
			w.report("cannot read the cluster's records: going on with the last view", err)
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			retry = min(2*retry, time.Second)
			continue
		}
		retry = 50 * time.Millisecond
		w.set(v)
		w.report("a record cannot be used: going on without it", v.Skipped...)
		w.await(ctx, c, v.Revision)
	}
}

// report logs the errors that the last call did not have. Only Run calls it.
func (w *Watcher) report(what string, errs ...error) {
	now := map[string]bool{}
	for _, err := range errs {
		text := err.Error()
		if now[text] = true; !w.logged[text] && len(now) <= maxReported {
			w.log.Warn(what, "err", text, "records", len(errs))
		}
	}
	w.logged = now
}

// await returns at the first event after the revision, at a peer's claim, or after the poll interval.
func (w *Watcher) await(ctx context.Context, c *Client, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	events := c.etcd.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(revision+1),
		clientv3.WithFragment())
	for {
		select {
		case r, ok := <-events:
			if !ok || len(r.Events) > 0 || r.Err() != nil {
				return
			}
		case <-w.ask:
			return
		}
	}
}
