package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

// Watcher keeps the newest View and signals each change of it. It is safe for concurrent use.
type Watcher struct {
	// Member, if it is set before Run, is the only member whose record must be new: the others' are as old as the poll
	// interval. N members that each read N records at every change of one would read N^3 while they join.
	Member string

	log      *slog.Logger
	mu       sync.Mutex
	view     View
	whole    int64     // revision at which the other members' records were read
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

// Now returns the newest view.
func (w *Watcher) Now() View {
	v, _ := w.View()
	return v
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

// accept replaces records that cannot be used by those of the view before. Records that are older than what was read
// before cannot be used either: somebody has put them back. An error: there is no job to go on with.
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
func (w *Watcher) set(v View, whole bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastRead, w.away = time.Now(), nil
	if v.Revision == w.view.Revision && w.view.Revision != 0 && !w.fromPeer && (!whole || w.whole == v.Revision) {
		return
	}
	if whole {
		w.whole = v.Revision
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

// pollFor is the interval for a member of so many: beyond manyMembers, what all of them read grows no faster than their
// number.
func pollFor(members int) time.Duration {
	return min(pollInterval*time.Duration(max(members, manyMembers))/manyMembers, longestPoll)
}

const (
	manyMembers = 64
	longestPoll = time.Minute
)

// maxReported bounds how many bad records of one view are logged.
const maxReported = 20

// Run keeps the view up to date until ctx ends; the caller owns the goroutine. While etcd is away the last view stays.
func (w *Watcher) Run(ctx context.Context, c *Client) {
	retry := 50 * time.Millisecond
	poll, whole := pollInterval, time.Time{} // when all records were read
	for ctx.Err() == nil {
		claim := w.takeClaim()
		began := time.Now()
		only := w.Member
		if began.Sub(whole) >= poll {
			only = ""
		}
		v, err := c.read(ctx, only)
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
		if only == "" {
			whole = began
		} else {
			v.renew(w.Now(), c.keys, only)
		}
		w.set(v, only == "")
		w.report("a record cannot be used: going on without it", v.Skipped...)
		if w.Member != "" {
			poll = pollFor(len(v.Members))
		}
		w.await(ctx, c, v.Revision, poll-time.Since(whole))
	}
}

// renew completes a view that has no other member's record than that one's with those of the view before.
func (v *View) renew(before View, k keys, only string) {
	v.Members = append(slices.DeleteFunc(slices.Clone(before.Members), func(m job.Member) bool { return m.ID == only }),
		v.Members...)
	for _, err := range before.Skipped {
		if bad, ok := errors.AsType[*BadRecord](err); ok && strings.HasPrefix(bad.Key, k.members()) &&
			bad.Key != k.member(only) {
			v.Skipped = append(v.Skipped, err)
		}
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

// concerns reports whether the change of a key must be read at once.
func (w *Watcher) concerns(k keys, key string) bool {
	id, member := strings.CutPrefix(key, k.members())
	return !member || w.Member == "" || id == w.Member
}

// await returns at the first event after the revision that concerns this watcher, at a peer's claim, or when it is time
// to poll.
func (w *Watcher) await(ctx context.Context, c *Client, revision int64, poll time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, poll)
	defer cancel()
	events := c.etcd.Watch(ctx, c.keys.all(), clientv3.WithPrefix(), clientv3.WithRev(revision+1),
		clientv3.WithFragment())
	for {
		select {
		case r, ok := <-events:
			if !ok || r.Err() != nil || slices.ContainsFunc(r.Events, func(e *clientv3.Event) bool {
				return w.concerns(c.keys, string(e.Kv.Key))
			}) {
				return
			}
		case <-w.ask:
			return
		}
	}
}
