package chaos

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"evenweave/internal/cluster"
)

// injector carries a schedule out.
type injector struct {
	cfg     *Config
	net     *network
	watch   *watcher
	show    Observer
	workers int             // the number that this injector has scaled to
	left    int             // how many of them were asked to leave; scaling replaces them
	leaving map[string]bool // members that were ever asked to leave
	killed  int64           // generation of the last kill; settling waits for a newer one
	lasting sync.WaitGroup
}

// run injects the faults in order until ctx ends, each when the job has reached its step. It always undoes a fault that
// lasts.
func (in *injector) run(ctx context.Context, faults []Fault) {
	defer in.lasting.Wait()
	for _, f := range faults {
		over := false
		if !in.watch.await(ctx, func(v cluster.View, committed int64) bool {
			over = v.Done != nil
			return over || v.World != nil && committed >= f.Step && (!in.cfg.Settle || v.World.Generation > in.killed &&
				in.watch.settled(v, in.cfg.Plan.Workers-in.left))
		}) {
			return
		}
		i := Injection{Fault: f}
		if over {
			i.Skipped = "the job was over"
		} else if !wait(ctx, f.After) {
			return
		} else {
			in.inject(ctx, &i, in.watch.views.Now())
		}
		in.watch.injected(i)
		in.show.Injected(i)
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// inject carries one fault out and records the outcome in i.
func (in *injector) inject(ctx context.Context, i *Injection, view cluster.View) {
	if view.World.Size() == 0 {
		i.Skipped = "no world"
		return
	}
	for _, r := range i.Ranks {
		i.Targets = append(i.Targets, view.World.Peers[r%view.World.Size()].ID)
	}
	i.Generation, i.At, i.Time = view.World.Generation, in.watch.committed(), time.Now()
	switch i.Kind {
	case Kill:
		in.killed = i.Generation
		for _, id := range i.Targets {
			in.signal(i, id, syscall.SIGKILL)
		}
	case Stop:
		in.stop(ctx, i, i.Targets[0])
	case Slow:
		in.slow(ctx, i)
	case Partition:
		in.partition(ctx, i, view)
	case Etcd, Coordinator:
		i.Targets = []string{string(i.Kind)}
		if i.Way == WayKill {
			in.signal(i, i.Targets[0], syscall.SIGKILL)
		} else {
			in.stop(ctx, i, i.Targets[0])
		}
	case Join:
		in.join(ctx, i)
	case Leave:
		in.leave(i, view)
	case Flip:
		in.flip(i, view)
	}
}

// flip changes a bit of a member that is not alone: between its last fingerprint and the update only peers notice it.
func (in *injector) flip(i *Injection, view cluster.View) {
	if view.World.Size() == 1 {
		i.Skipped = "no peer would notice it in an update"
		return
	}
	in.signal(i, i.Targets[0], syscall.SIGUSR1)
}

// leave asks a member to leave, but never the last one, nor one that is leaving already.
func (in *injector) leave(i *Injection, view cluster.View) {
	stay := 0
	for _, p := range view.World.Peers {
		if !in.leaving[p.ID] {
			stay++
		}
	}
	switch id := i.Targets[0]; {
	case in.leaving[id]:
		i.Skipped = id + " is leaving already"
	case stay <= 1:
		i.Skipped = "no other member would stay"
	default:
		if in.signal(i, id, syscall.SIGTERM); i.Skipped == "" {
			in.leaving[id] = true
			in.left++
		}
	}
}

func (in *injector) signal(i *Injection, name string, s syscall.Signal) {
	pid := in.net.pid(name)
	if pid == 0 {
		i.Skipped = name + " is not known"
		return
	}
	if err := syscall.Kill(pid, s); err != nil {
		i.Skipped = fmt.Sprintf("%s (pid %d): %v", name, pid, err)
	}
}

// stop stops a process for the fault's time.
func (in *injector) stop(ctx context.Context, i *Injection, name string) {
	pid := in.net.pid(name)
	if in.signal(i, name, syscall.SIGSTOP); i.Skipped != "" {
		return
	}
	in.lasting.Go(func() {
		wait(ctx, i.For)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	})
}

// slow lets a process run for a quarter of the time.
func (in *injector) slow(ctx context.Context, i *Injection) {
	pid := in.net.pid(i.Targets[0])
	if in.signal(i, i.Targets[0], 0); i.Skipped != "" {
		return
	}
	in.lasting.Go(func() {
		for until := time.Now().Add(i.For); time.Now().Before(until) && ctx.Err() == nil; {
			_ = syscall.Kill(pid, syscall.SIGSTOP)
			wait(ctx, 75*time.Millisecond)
			_ = syscall.Kill(pid, syscall.SIGCONT)
			wait(ctx, 25*time.Millisecond)
		}
	})
}

func (in *injector) partition(ctx context.Context, i *Injection, view cluster.View) {
	victim := in.net.processOf(i.Targets[0])
	right := ""
	if i.Way == WayPair {
		if view.World.Size() < 2 {
			i.Skipped = "a world of one"
			return
		}
		id := view.World.Peers[(i.Ranks[0]+1)%view.World.Size()].ID
		i.Targets, right = append(i.Targets, id), in.net.processOf(id)
	}
	restore := in.net.cut(between(i.Way, victim, right))
	in.lasting.Go(func() {
		wait(ctx, i.For)
		restore()
	})
}

// between is the cut for one way of a partition.
func between(way, victim, right string) cut {
	worker := func(p string) bool { return strings.HasPrefix(p, "worker") }
	return func(src, dst string) bool {
		from, to := src == victim, dst == victim
		switch way {
		case WayIn:
			return to && worker(src)
		case WayOut:
			return from && worker(dst)
		case WayBoth:
			return to && worker(src) || from && worker(dst)
		case WayPair:
			return from && dst == right || to && src == right
		case WayAlone:
			return (from || to) && src != "" && dst != ""
		case WayEtcd:
			return from && dst == "etcd" || to && src == "etcd"
		}
		return false
	}
}

// join asks for one more worker, up to twice the number at the start.
func (in *injector) join(ctx context.Context, i *Injection) {
	if in.workers >= 2*in.cfg.Plan.Workers+in.cfg.Spares {
		i.Skipped = fmt.Sprintf("%d workers are enough", in.workers)
		return
	}
	client, err := cluster.Dial([]string{in.watch.where()}, in.cfg.Cluster.Job)
	if err != nil {
		i.Skipped = err.Error()
		return
	}
	defer client.Close()
	if _, err := client.SetWorkers(ctx, in.workers+1); err != nil {
		i.Skipped = err.Error()
		return
	}
	in.workers, in.left = in.workers+1, 0
}
