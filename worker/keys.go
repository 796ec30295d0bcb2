package worker

import (
	"context"
	"slices"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/security"
)

// register keeps the keys of this process's certificate in its record until ctx ends; the caller owns the goroutine. A
// renewed key is registered beside the one in use. A member of the world uses it from the next world on, which the
// coordinator publishes for that; another one as soon as its record in etcd names it. Then the old one is taken out.
func (cfg Config) register(ctx context.Context, over *security.Transport, views *cluster.Watcher,
	membership *cluster.Membership) {
	for {
		view, changed := views.View()
		me, registered := view.Member(cfg.ID)
		if view.World == nil || view.World.Rank(cfg.ID) < 0 {
			over.Keys().Use(me.Keys)
		}
		if keys := over.Registered(); registered && !slices.Equal(keys, me.Keys) {
			membership.Update(func(m *job.Member) { m.Keys = keys })
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-over.Keys().Changed():
		}
	}
}
