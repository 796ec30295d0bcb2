package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

// renewPause is how long a world lasts before it is published again for new keys alone.
const renewPause = 10 * time.Second

// gather publishes a first world, or one after all members of the last are gone.
func (p *Policy) gather(now time.Time) []any {
	n := len(p.candidates())
	switch {
	case p.halting: // only the disk has the state
		return nil
	case n == 0 && slices.ContainsFunc(p.members, func(m job.Member) bool { return !p.standing(m.ID).reached }):
		return nil // registered members report soon, or their leases run out
	}
	if wait, out := p.expect(now, n); wait {
		return out
	}
	return p.publish(now, "workers are ready", true, false)
}

// expect reports whether a first world must wait for more than n members, and says so. The wait for as many as are
// expected begins when there are enough.
func (p *Policy) expect(now time.Time, n int) (wait bool, out []any) {
	if able := len(p.able()); able == 0 || able < p.limits.Min {
		p.since = time.Time{}
	} else if p.since.IsZero() {
		p.since = now
	}
	most := p.limits.ExpectFor
	if p.world != nil { // the job ran before: late members join later
		most = min(most, p.limits.TTL)
	}
	switch {
	case n < p.limits.Min:
		return true, p.note(fmt.Sprintf("waiting for workers: %d of at least %d are ready", n, p.limits.Min))
	case p.opened == 0 && n < p.limits.Expect && now.Sub(p.since) < most:
		return true, p.note(fmt.Sprintf("waiting for workers: %d of %d are ready", n, p.limits.Expect))
	}
	return false, nil
}

// publishPlanned publishes a world that members enter after their next commit, if the facts ask for a new one.
func (p *Policy) publishPlanned(now time.Time) []any {
	peers, halt := p.desired(now, false)
	if halt == p.world.Halt && slices.Equal(peers, p.world.Peers) &&
		(!p.renewed() || now.Sub(p.published) < renewPause) {
		return nil
	}
	if len(peers) < p.limits.Min && len(peers) > 0 && !halt {
		return p.note(fmt.Sprintf("a world of %d would be below --min-workers %d: keeping the present one",
			len(peers), p.limits.Min))
	}
	return p.publish(now, p.changes(peers, halt), false, false)
}

func (p *Policy) changes(peers []job.Peer, halt bool) string {
	var parts []string
	for _, peer := range peers {
		if p.rank(peer.ID) < 0 {
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
	case len(parts) == 0 && slices.Equal(peers, p.world.Peers):
		parts = append(parts, "certificates renewed")
	case len(parts) == 0:
		parts = append(parts, "another order")
	}
	return strings.Join(parts, ", ")
}

// publish asks for the next world. forced, after a failure or for the first world: members stop at once and lose their
// step; otherwise they finish it first.
// late: a deadline passed although all members are alive, so the next ones are longer.
func (p *Policy) publish(now time.Time, reason string, forced, late bool) []any {
	peers, halt := p.desired(now, forced)
	if len(peers) < p.limits.Min && (len(peers) > 0 || forced) && !halt {
		p.waitingSince = time.Time{} // others will wait for reports, too
		return p.note(fmt.Sprintf("%s; waiting for workers: %d of at least %d are ready",
			reason, len(peers), p.limits.Min))
	}
	if forced { // a tick asks again
		if wait, out := p.early(now, reason, peers); wait {
			return out
		}
		if p.world != nil && now.Sub(p.published) < p.pause() {
			return nil
		}
	}
	p.published = now
	if p.world != nil && p.opened != p.world.Generation {
		p.unopened++
	}
	h := p.holders()
	counting, doubted := p.counting(h, peers)
	w := job.World{
		Job: p.job, Generation: 1, Peers: peers, Since: 1, DurableStep: p.durableStep, Coordinator: p.address,
		Halt: halt, Reason: cut(reason), Keys: p.keys(peers),
		Fresh: job.World{Peers: without(peers, counting)}.IDs(), Doubted: doubted[:min(len(doubted), job.MaxPeers)],
	}
	w.Away = without(slices.Concat(h.stayed, h.away), slices.Concat(peers, doubted))
	w.Away = w.Away[:min(len(w.Away), job.MaxPeers)]
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

// keys are those that the peers have registered, or had when the present world was published; nil: they have none.
func (p *Policy) keys(peers []job.Peer) map[string][]string {
	keys := map[string][]string{}
	for _, peer := range peers {
		m, registered := p.member(peer.ID)
		switch {
		case registered && m.Peer() == peer && len(m.Keys) > 0:
			keys[peer.ID] = m.Keys
		case p.world != nil && len(p.world.Keys[peer.ID]) > 0 && slices.Contains(p.world.Peers, peer):
			keys[peer.ID] = p.world.Keys[peer.ID]
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return keys
}

// renewed reports whether a member of the present world has registered other keys than the world names. The next
// world's ring is dialled with those.
func (p *Policy) renewed() bool {
	return !maps.EqualFunc(p.keys(p.world.Peers), p.world.Keys, slices.Equal)
}

// cut bounds a reason, which every member reads and logs.
func cut(reason string) string {
	const most = 2048
	if len(reason) > most {
		return strings.ToValidUTF8(reason[:most], "") + "..."
	}
	return reason
}
