package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/proto"
)

// watcher follows etcd's records and every member's own status, but not the coordinator, which may be the victim.
type watcher struct {
	views     *cluster.Watcher
	announced chan struct{} // closed when endpoint is known
	endpoint  string        // of etcd

	mu       sync.Mutex
	line     Timeline
	seen     map[[2]int64]bool // step and generation of the commits in line
	newest   int64             // generation among the worlds in line
	accused  map[string]int64  // by member: the generation of its last accusation
	opened   map[string]int64  // by member: the generation that it last opened
	heals    map[string]int64
	reached  int64 // most steps committed
	progress chan struct{}
}

func newWatcher() *watcher {
	return &watcher{views: cluster.NewWatcher(nil), announced: make(chan struct{}), seen: map[[2]int64]bool{},
		accused: map[string]int64{}, opened: map[string]int64{}, heals: map[string]int64{},
		progress: make(chan struct{})}
}

// etcd sets etcd's endpoint, which does not change during a run.
func (w *watcher) etcd(endpoint string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.endpoint == "" {
		w.endpoint = endpoint
		close(w.announced)
	}
}

func (w *watcher) where() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.endpoint
}

// settled reports whether the world has this many members and has committed a step.
func (w *watcher) settled(v cluster.View, workers int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(w.line.Commits)
	return v.World.Size() >= workers && n > 0 && w.line.Commits[n-1].Generation == v.World.Generation
}

// run follows until ctx ends.
func (w *watcher) run(ctx context.Context, jobName string) error {
	var client *cluster.Client
	select {
	case <-ctx.Done():
		return nil
	case <-w.announced:
		var err error
		if client, err = cluster.Dial([]string{w.where()}, jobName); err != nil {
			return err
		}
	}
	defer client.Close()
	pool := &proto.Pool{Options: client.Transport().Options(security.Worker)}
	defer pool.Close()
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { w.views.Run(ctx, client) })
	following := map[string]context.CancelFunc{}
	for {
		view, changed := w.views.View()
		w.look(view)
		pool.Retain(addresses(view))
		for _, m := range view.Members {
			if _, ok := following[m.ID]; !ok && view.Job != nil {
				one, stop := context.WithCancel(ctx)
				following[m.ID] = stop
				tasks.Go(func() { w.follow(one, pool, m, view.Job.UUID) })
			}
		}
		for id, stop := range following {
			_, registered := view.Member(id)
			if inWorld := view.World != nil && view.World.Rank(id) >= 0; !registered && !inWorld {
				stop()
				delete(following, id)
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			for _, stop := range following {
				stop()
			}
			return nil
		}
	}
}

// addresses returns the addresses of all members, also of the world's members that are no longer registered.
func addresses(view cluster.View) (list []string) {
	for _, m := range view.Members {
		list = append(list, m.Address)
	}
	if view.World != nil {
		for _, p := range view.World.Peers {
			list = append(list, p.Address)
		}
	}
	return list
}

func (w *watcher) follow(ctx context.Context, pool *proto.Pool, m job.Member, uuid string) {
	for ctx.Err() == nil {
		if conn, err := pool.Dial(m.Address); err == nil {
			stream, err := proto.NewMemberClient(conn).Follow(ctx,
				&proto.FollowRequest{Job: uuid, AfterStep: w.committed()})
			for err == nil {
				var s *proto.Status
				if s, err = stream.Recv(); err == nil {
					w.add(s)
				}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (w *watcher) look(view cluster.View) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if view.World != nil && view.World.Generation > w.newest {
		w.newest = view.World.Generation
		w.line.Worlds = append(w.line.Worlds, Mark{Time: time.Now(), Generation: w.newest,
			Reason: view.World.Reason})
	}
	w.wake()
}

func (w *watcher) wake() {
	close(w.progress)
	w.progress = make(chan struct{})
}

// add adds a member's status to the timeline.
func (w *watcher) add(s *proto.Status) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	if a := s.Accusation; a != nil && a.Generation > w.accused[s.Member] {
		w.accused[s.Member] = a.Generation
		w.line.Accusations = append(w.line.Accusations, Mark{Time: now, Generation: a.Generation, Step: a.Step,
			Reason: fmt.Sprintf("%s waited %v for %s (%s, %s)",
				s.Member, time.Duration(a.WaitedNanos).Round(time.Millisecond), a.Suspect, a.Kind, a.Phase)})
	}
	if agreed := s.Phase == "open" || s.Phase == "compute" || s.Phase == "reduce" || s.Phase == "update"; agreed &&
		s.Generation > w.opened[s.Member] {
		w.opened[s.Member] = s.Generation
		w.line.Opened = append(w.line.Opened, Mark{Time: now, Generation: s.Generation, Step: s.Step})
	}
	if s.Heals > w.heals[s.Member] {
		w.heals[s.Member] = s.Heals
		w.line.Heals = append(w.line.Heals, Mark{Time: now, Generation: s.Generation, Step: s.Step, Reason: s.Heal})
	}
	for _, c := range s.Commits {
		key := [2]int64{c.Step, c.Generation}
		if w.seen[key] {
			continue
		}
		w.seen[key] = true
		w.line.Commits = append(w.line.Commits, Mark{Time: time.Unix(0, c.TimeNanos), Generation: c.Generation,
			Step: c.Step})
		w.reached = max(w.reached, c.Step)
	}
	w.wake()
}

// committed is the highest step that any member has reported.
func (w *watcher) committed() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reached
}

func (w *watcher) injected(i Injection) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line.Injections = append(w.line.Injections, i)
}

// await waits until holds accepts the view and the committed steps. It returns false if ctx ends first.
func (w *watcher) await(ctx context.Context, holds func(v cluster.View, committed int64) bool) bool {
	for {
		w.mu.Lock()
		reached, progress := w.reached, w.progress
		w.mu.Unlock()
		view, changed := w.views.View()
		if holds(view, reached) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-progress:
		case <-changed:
		}
	}
}

// timeline returns all marks, by time.
func (w *watcher) timeline() Timeline {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.SortStableFunc(w.line.Commits, func(a, b Mark) int { return a.Time.Compare(b.Time) })
	return w.line
}
