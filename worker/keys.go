package worker

import (
	"context"
	"slices"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
)

// register keeps the keys of this process's certificate in its record until ctx ends; the caller owns the goroutine. A
// renewed key is registered beside the one in use. A member of the world uses it from the next world on, which the
// coordinator publishes for that; another one as soon as its record in etcd names it. Then the old one is taken out.
func (p *process) register(ctx context.Context, membership *cluster.Membership) {
	keys := p.over.Keys()
	for {
		view, changed := p.views.View()
		me, registered := view.Member(p.ID)
		if view.World == nil || view.World.Rank(p.ID) < 0 {
			keys.Use(me.Keys)
		}
		if now := p.over.Registered(); registered && !slices.Equal(now, me.Keys) {
			membership.Update(func(m *job.Member) { m.Keys = now })
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-keys.Changed():
		}
	}
}
