package policy

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
)

const (
	maxLinkFailures = 2               // failures in a row of a pair's link that separate the two, as maxCharges do
	quarantineFirst = 5 * time.Second // doubled for every quarantine in a row
	quarantineMost  = 10 * time.Minute
)

// desired is the world that the facts ask for: members stay, in order, unless lost, quarantined or leaving; ready
// members fill free places.
//
// A leaving member goes only by a planned change, when all members have the state, and only if another member that has
// its state stays, or the state is on disk: after a failure the holders are unknown.
func (p *Policy) desired(now time.Time, forced bool) (peers []job.Peer, halt bool) {
	peers, halt = p.fitting(now, forced)
	if out := p.outvoted(len(peers)); len(out) > 0 {
		p.acquit(now, out, peers)
		peers, halt = p.fitting(now, forced)
	}
	return peers, halt
}

func (p *Policy) fitting(now time.Time, forced bool) (peers []job.Peer, halt bool) {
	var stay, all []job.Peer // without and with the leaving members
	in := make([]bool, len(p.peers()))
	for rank, peer := range p.peers() {
		m, registered := p.member(peer.ID)
		if !p.present(peer) || !p.standing(peer.ID).quarantined.IsZero() || registered && m.Numerics != p.numerics {
			continue
		}
		all, in[rank] = append(all, peer), true
		if !registered || !m.Leaving {
			stay = append(stay, peer)
		}
	}
	having, others := p.joiners(in, len(stay) < p.limits.Min && (!forced || len(all) < p.limits.Min))
	needed := false // or the state is lost
	if forced && len(having) > 0 {
		h := p.holders()
		needed = h.kind(all) > h.kind(having)
	}
	if p.halting && len(all) > 0 {
		if others = nil; !needed {
			having = nil
		}
	}
	joiners := slices.Concat(having, others)
	switch {
	case forced:
		peers = all
	case len(stay) > 0 || p.saved(all):
		peers = stay
	case p.limits.Max > 1:
		peers = all[:1] // passes its state to the joiners, then leaves
	}
	switch {
	case needed:
		peers = peers[:min(len(peers), p.limits.Max-1)]
	case len(stay) == 0 && len(all) > 0 && (len(joiners) == 0 || p.limits.Max == 1) && (forced || !p.saved(all)):
		return p.reorder(now, all), true // the last members to leave hold the state until it is on disk
	case len(peers) > p.limits.Max:
		peers = peers[:p.limits.Max]
	}
	peers = slices.Concat(peers, joiners[:min(len(joiners), p.limits.Max-len(peers))])
	return p.reorder(now, peers), p.halting
}

// joiners are the candidates that are not in yet: those that have a state that may count, and the others. in says which
// ranks are. Members that are still catching up are among them only with atOnce, which is for a world that has too few
// members.
func (p *Policy) joiners(in []bool, atOnce bool) (having, others []job.Peer) {
	var all []job.Peer
	for _, m := range p.candidates() {
		if p.standing(m.ID).report.CatchingUp && !atOnce {
			continue
		}
		if rank := p.rank(m.ID); rank < 0 || !in[rank] {
			all = append(all, m.Peer())
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	h := p.holders()
	having = slices.Concat(both(all, h.stayed), both(all, h.away), both(all, h.doubted))
	return having, without(all, having)
}

// candidates are the registered members that a world may use, oldest first. Each has reported or answered in this term:
// a dead process stays registered for the time of its lease, and a world with it could not train.
func (p *Policy) candidates() []job.Member {
	var out []job.Member
	for _, m := range p.members {
		if s := p.standing(m.ID); p.usable(m) && s.reached && (s.report.Resting || s.report.CatchingUp) && !s.suspect {
			out = append(out, m)
		}
	}
	return out
}

// usable reports whether a world may use a registered member, if its process is alive.
func (p *Policy) usable(m job.Member) bool {
	return !m.Leaving && m.Numerics == p.numerics && m.Speaks() == nil && p.dismissed[m.ID] == "" &&
		p.standing(m.ID).quarantined.IsZero()
}

// saved reports whether the state that these members hold is durable.
func (p *Policy) saved(peers []job.Peer) bool {
	for _, peer := range peers {
		if t := p.standing(peer.ID).report; !t.Holding || t.Generation != p.world.Generation || t.Step > p.durableStep {
			return false
		}
	}
	return true
}

// reorder finds an order in which no neighbours are a pair that cannot reach each other. If there is none, it
// quarantines one member of such a pair.
func (p *Policy) reorder(now time.Time, peers []job.Peer) []job.Peer {
	for {
		if p.fits(peers) {
			return peers
		}
		if better := p.rearrange(peers); better != nil {
			return better
		}
		out := p.leftOut(peers)
		p.quarantine(now, peers[out].ID, true)
		peers = slices.Delete(slices.Clone(peers), out, out+1)
	}
}

func (p *Policy) bad(a, b job.Peer) bool {
	l := p.links[pairOf(a, b)]
	return l != nil && (l.row >= maxLinkFailures || l.failures >= maxCharges)
}

// fits reports whether all neighbours in this ring can reach each other.
func (p *Policy) fits(ring []job.Peer) bool {
	for i := range ring {
		if len(p.links) > 0 && len(ring) > 1 && p.bad(ring[i], ring[(i+1)%len(ring)]) {
			return false
		}
	}
	return true
}

// rearrange searches for a ring without bad pairs of neighbours. It places the members with most bad pairs first; nil:
// none found.
func (p *Policy) rearrange(peers []job.Peer) []job.Peer {
	left := slices.Clone(peers)
	slices.SortStableFunc(left, func(a, b job.Peer) int { return p.badPairs(b, peers) - p.badPairs(a, peers) })
	var ring []job.Peer
	var place func() bool
	tries := 1000 // a bound on the search, not on the size of a world
	place = func() bool {
		if len(left) == 0 {
			return p.fits(ring)
		}
		for i := 0; i < len(left) && tries > 0; i++ {
			tries--
			next := left[i]
			if n := len(ring); n > 0 && p.bad(ring[n-1], next) {
				continue
			}
			ring, left = append(ring, next), slices.Delete(slices.Clone(left), i, i+1)
			if place() {
				return true
			}
			ring, left = ring[:len(ring)-1], slices.Insert(slices.Clone(left), i, next)
		}
		return false
	}
	if place() {
		return ring
	}
	return nil
}

func (p *Policy) badPairs(peer job.Peer, among []job.Peer) (n int) {
	for _, other := range among {
		if p.bad(peer, other) {
			n++
		}
	}
	return n
}

// leftOut is the index of the member to leave out: the one in most bad pairs, then the one that most often failed to
// reach its neighbour, or accused it alone (not the one that it accuses), then the youngest. What a member says of its
// own state does not count.
func (p *Policy) leftOut(peers []job.Peer) int {
	out := 0
	for i := range peers {
		a, b := p.standing(peers[out].ID), p.standing(peers[i].ID)
		if cmp.Or(p.badPairs(peers[i], peers)-p.badPairs(peers[out], peers), b.helpless-a.helpless) >= 0 {
			out = i
		}
	}
	return out
}

// quarantine leaves a member out for a while, longer each time in a row, so that two that cannot reach each other do
// not evict each other forever. blamed: by the word of others, not by its own.
func (p *Policy) quarantine(now time.Time, id string, blamed bool) {
	s := p.standing(id)
	s.quarantined = now.Add(min(quarantineFirst<<min(s.quarantines, 10), quarantineMost))
	s.quarantines++
	s.faults, s.blamed, s.tally = 0, blamed, p.mark()
}

// release ends a member's quarantine on probation: one more fault, or failure of its link, leaves it out again.
func (p *Policy) release(id string) {
	s := p.standing(id)
	s.quarantined, s.faults, s.tally = time.Time{}, maxFaults-1, p.mark()
	for ids, l := range p.links {
		if ids.a == id || ids.b == id {
			l.row, l.failures = min(l.row, maxLinkFailures-1), min(l.failures, maxCharges-1)
		}
	}
}

// outvoted are the members that are left out by the word of others, and would be more than a world of n. Then the few
// may be at fault and not the many.
func (p *Policy) outvoted(n int) (out []job.Peer) {
	for _, m := range p.members {
		s := p.standing(m.ID)
		if s.blamed && !s.quarantined.IsZero() && s.reached && !s.suspect && (s.report.Resting || s.report.CatchingUp) {
			out = append(out, m.Peer())
		}
	}
	if len(out) > n {
		return out
	}
	return nil
}

// acquit lets members back that were left out, and leaves one of all out instead: the one in most bad pairs. The links
// between the others count as new.
func (p *Policy) acquit(now time.Time, out, in []job.Peer) {
	for _, peer := range out {
		p.standing(peer.ID).quarantined = time.Time{}
	}
	all := slices.Concat(in, out)
	if len(all) < 2 {
		return
	}
	worst := all[p.leftOut(all)]
	maps.DeleteFunc(p.links, func(ids pair, _ *link) bool { return ids.a != worst.ID && ids.b != worst.ID })
	s := p.standing(worst.ID)
	s.quarantined, s.blamed, s.tally = now.Add(quarantineFirst), true, p.mark()
}
