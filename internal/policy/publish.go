package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

// gather publishes a first world, or one after all members of the last are gone.
func (p *Policy) gather(now time.Time) []any {
	n := len(p.candidates())
	if n > 0 && p.since.IsZero() {
		p.since = now
	}
	patience := p.limits.ExpectFor
	if p.world != nil { // the job ran before: who is late joins
		patience = min(patience, p.limits.TTL)
	}
	switch {
	case p.halting: // what is on disk is all there is
		return nil
	case n == 0 && slices.ContainsFunc(p.members, func(m job.Member) bool { return !p.standing(m.ID).heard }):
		return nil // whoever is registered will be heard in a moment, or its lease runs out
	case n < p.limits.Min:
		return p.note(fmt.Sprintf("waiting for workers: %d of at least %d are ready", n, p.limits.Min))
	case p.opened == 0 && n < p.limits.Expect && now.Sub(p.since) < patience:
		return p.note(fmt.Sprintf("waiting for workers: %d of %d are ready", n, p.limits.Expect))
	}
	return p.publish(now, "workers are ready", true, false)
}

// publishPlanned publishes a world that members enter after their next commit, if the facts ask for another than the present one.
func (p *Policy) publishPlanned(now time.Time) []any {
	peers, halt := p.desired(now, false)
	if halt == p.world.Halt && slices.Equal(peers, p.world.Peers) {
		return nil
	}
	if len(peers) < p.limits.Min && len(peers) > 0 && !halt {
		return p.note(fmt.Sprintf("a world of %d would be below --min-workers %d: keeping the present one", len(peers), p.limits.Min))
	}
	return p.publish(now, p.changes(peers, halt), false, false)
}

func (p *Policy) changes(peers []job.Peer, halt bool) string {
	var parts []string
	for _, peer := range peers {
		if p.world.Rank(peer.ID) < 0 {
			parts = append(parts, peer.ID+" joins")
		}
	}
	for _, peer := range p.world.Peers {
		if !slices.ContainsFunc(peers, func(q job.Peer) bool { return q.ID == peer.ID }) {
			parts = append(parts, peer.ID+" leaves")
		}
	}
	switch {
	case halt && !p.world.Halt:
		parts = append(parts, "halting")
	case p.world.Halt && !halt && len(peers) > 0:
		parts = append(parts, "going on")
	case len(parts) == 0:
		parts = append(parts, "another order")
	}
	return strings.Join(parts, ", ")
}

// publish asks for the next world. forced: members stop at once, their step is lost; otherwise they finish it first.
// late: a deadline passed although everybody is alive, so the next are longer.
func (p *Policy) publish(now time.Time, reason string, forced, late bool) []any {
	peers, halt := p.desired(now, forced)
	if len(peers) < p.limits.Min && (len(peers) > 0 || forced) && !halt {
		return p.note(fmt.Sprintf("%s; waiting for workers: %d of at least %d are ready", reason, len(peers), p.limits.Min))
	}
	if forced && p.world != nil && now.Sub(p.published) < p.pause() {
		return nil // a tick asks again
	}
	p.published = now
	if p.world != nil && p.opened != p.world.Generation {
		p.fruitless++
	}
	w := job.World{Job: p.job, Generation: 1, Peers: peers, Since: 1, DurableStep: p.floor, Coordinator: p.address, Halt: halt, Reason: cut(reason), Fresh: p.fresh(peers)}
	if len(p.dismissed) > 0 {
		w.Dismissed = maps.Clone(p.dismissed)
	}
	if p.world != nil {
		w.Generation = p.world.Generation + 1
		w.Since = w.Generation
		if !forced {
			w.Since = p.world.Generation
		}
		w.Backoff = p.world.Backoff
		switch {
		case late:
			w.Backoff = min(w.Backoff+1, 6)
		case p.opened == p.world.Generation:
			w.Backoff = max(w.Backoff-1, 0)
		}
	}
	p.pending = w.Generation
	p.noted = ""
	return []any{Publish{w}}
}

// cut bounds what every member reads and logs.
func cut(reason string) string {
	const most = 2048
	if len(reason) > most {
		return strings.ToValidUTF8(reason[:most], "") + "..."
	}
	return reason
}

// fresh are the peers whose states count only if no other has one: they were not in the newest generation that opened, so what they have may
// be old.
func (p *Policy) fresh(peers []job.Peer) []string {
	var out []string
	for _, peer := range peers {
		if p.world == nil || p.world.Rank(peer.ID) < 0 || p.opened != p.world.Generation && slices.Contains(p.world.Fresh, peer.ID) {
			out = append(out, peer.ID)
		}
	}
	return out
}
