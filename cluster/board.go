package cluster

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/job"
)

// Board keeps the newest View and tells who waits when it changes. Safe for concurrent use.
type Board struct {
	mu      sync.Mutex
	view    View
	heard   time.Time // when etcd last answered
	changed chan struct{}
}

// NewBoard returns an empty board; Run fills it.
func NewBoard() *Board { return &Board{changed: make(chan struct{})} }

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

// Learn takes a world record that came from a peer, so that a member that reaches its peers but not etcd does not stay behind.
// Records of another job and older ones are ignored.
func (b *Board) Learn(w job.World) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.view.Job == nil || b.view.Job.UUID != w.Job || (b.view.World != nil && b.view.World.Generation >= w.Generation) {
		return
	}
	b.view.World = &w
	b.publish()
}

func (b *Board) set(v View) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = time.Now()
	if v.Revision == b.view.Revision && b.view.Revision != 0 {
		return
	}
	// A world learnt from a peer may be ahead of a view read from a lagging etcd member.
	if old := b.view.World; old != nil && v.Job != nil && old.Job == v.Job.UUID && (v.World == nil || v.World.Generation < old.Generation) {
		v.World = old
	}
	b.view = v
	b.publish()
}

func (b *Board) publish() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// pollInterval bounds how stale a view can get should a watch fall silent without an error.
const pollInterval = 2 * time.Second

// Run keeps the board up to date until ctx ends; the caller owns the goroutine. While etcd is away the last view stays.
func (b *Board) Run(ctx context.Context, c *Client) {
	retry := 50 * time.Millisecond
	for ctx.Err() == nil {
		v, err := c.Read(ctx)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			retry = min(2*retry, time.Second)
			continue
		}
		retry = 50 * time.Millisecond
		b.set(v)
		b.await(ctx, c, v.Revision)
	}
}

// await returns at the first event after the revision, or after the poll interval.
func (b *Board) await(ctx context.Context, c *Client, revision int64) {
	ctx, cancel := context.WithTimeout(ctx, pollInterval)
	defer cancel()
	for r := range c.etcd.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(revision+1)) {
		if len(r.Events) > 0 || r.Err() != nil {
			return
		}
	}
}
