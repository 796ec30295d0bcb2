package cluster

import (
	"context"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

// Board keeps the newest View and tells who waits when it changes. Safe for concurrent use.
type Board struct {
	log     *slog.Logger
	mu      sync.Mutex
	view    View
	heard   time.Time // when etcd last answered
	away    error     // why it does not now; nil: it does
	claim   *job.World
	learnt  bool // view.World is from a peer: etcd was away
	changed chan struct{}
	ask     chan struct{} // wakes Run up to read at once
	told    map[string]bool
}

// NewBoard returns an empty board; Run fills it. The log, which may be nil, gets what cannot be read, once a change.
func NewBoard(log *slog.Logger) *Board {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Board{log: log, changed: make(chan struct{}), ask: make(chan struct{}, 1)}
}

// View returns the newest view and a channel that is closed when it changes.
func (b *Board) View() (View, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view, b.changed
}

// Heard returns when etcd last answered a read; zero: never.
func (b *Board) Heard() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.heard
}

// Err returns why etcd's records cannot be read now; nil: they can, or nothing was asked yet.
func (b *Board) Err() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.away
}

// Learn takes a world record that came from a peer, so that a member that reaches its peers but not etcd does not stay behind.
// What etcd answers is believed before any peer: while it does answer, a peer's word only makes the board ask at once.
// Records that cannot be, of another job, and older ones are ignored.
func (b *Board) Learn(w job.World) {
	if w.Validate() != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.newer(&w) {
		return
	}
	if b.away != nil {
		b.adopt(&w)
		return
	}
	b.claim = &w
	select {
	case b.ask <- struct{}{}:
	default:
	}
}

func (b *Board) newer(w *job.World) bool {
	return w != nil && b.view.Job != nil && b.view.Job.UUID == w.Job && (b.view.World == nil || b.view.World.Generation < w.Generation)
}

func (b *Board) adopt(w *job.World) {
	b.view.World, b.learnt = w, true
	b.publish()
}

// claimed takes away what peers have claimed before a read begins, which will confirm or refute it.
func (b *Board) claimed() *job.World {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.claim
	b.claim = nil
	return w
}

// missed notes that etcd did not answer. Then a peer's word counts.
func (b *Board) missed(err error, claim *job.World) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.away = err
	for _, w := range []*job.World{claim, b.claim} {
		if b.newer(w) {
			b.adopt(w)
		}
	}
	b.claim = nil
}

// set takes what etcd answers. Its reads are linearizable, so a world that a peer told of before and that is not in it was never published.
func (b *Board) set(v View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard, b.away = time.Now(), nil
	if v.Revision == b.view.Revision && b.view.Revision != 0 && !b.learnt {
		return
	}
	b.view, b.learnt = v, false
	b.publish()
}

func (b *Board) publish() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// pollInterval bounds how stale a view can get should a watch fall silent without an error.
const pollInterval = 2 * time.Second

// maxReported bounds how many bad records of one view are logged.
const maxReported = 20

// Run keeps the board up to date until ctx ends; the caller owns the goroutine. While etcd is away the last view stays.
func (b *Board) Run(ctx context.Context, c *Client) {
	retry := 50 * time.Millisecond
	for ctx.Err() == nil {
		claim := b.claimed()
		v, err := c.read(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			b.missed(err, claim) // at once; why takes longer to find out
			err = c.explain(ctx, err)
			b.missed(err, nil)
			b.report("cannot read the cluster's records: going on with what was read last", err)
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			retry = min(2*retry, time.Second)
			continue
		}
		retry = 50 * time.Millisecond
		b.set(v)
		b.report("a record cannot be used: going on without it", v.Skipped...)
		b.await(ctx, c, v.Revision)
	}
}

// report logs those of the errors that were not there at the last call, and forgets those that are not there now. Only Run calls it.
func (b *Board) report(what string, errs ...error) {
	now := map[string]bool{}
	for _, err := range errs {
		text := err.Error()
		if now[text] = true; !b.told[text] && len(now) <= maxReported {
			b.log.Warn(what, "err", text, "records", len(errs))
		}
	}
	b.told = now
}

// await returns at the first event after the revision, when a peer has claimed something, or after the poll interval.
func (b *Board) await(ctx context.Context, c *Client, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	events := c.etcd.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithFragment())
	for {
		select {
		case r, ok := <-events:
			if !ok || len(r.Events) > 0 || r.Err() != nil {
				return
			}
		case <-b.ask:
			return
		}
	}
}
