package policy

import (
	"cmp"
	"slices"
	"time"

	"evenweave/internal/job"
)

const (
	struckOut  = 2               // failures of a pair in a row: then the two are kept apart
	benchFirst = 5 * time.Second // doubled for every bench in a row
	benchMost  = 10 * time.Minute
)

// desired is the world that the facts ask for: who is in it stays, in order, unless lost, benched or leaving; ready members fill the room.
//
// A leaver goes only by a planned change, and only when somebody who shares its state stays, or the state is on disk: after a failure
// nobody knows who has it. planned means that the present generation has opened, so that all its members have the state.
func (p *Policy) desired(now time.Time, forced bool) (peers []job.Peer, halt bool) {
	var stay, all []job.Peer // without and with those who leave
	for _, peer := range p.peers() {
		m, registered := p.member(peer.ID)
		if !p.present(peer) || !p.standing(peer.ID).benched.IsZero() || registered && m.Numerics != p.numerics {
			continue
		}
		all = append(all, peer)
		if !registered || !m.Leaving {
			stay = append(stay, peer)
		}
	}
	joiners := p.joiners(all)
	if p.halting && len(all) > 0 {
		joiners = nil
	}
	switch {
	case forced:
		peers = all
	case len(stay) > 0 || p.saved(all):
		peers = stay
	case p.limits.Max > 1:
		peers = all[:1] // hands its state to the joiners, then goes
	}
	switch {
	case len(stay) == 0 && len(all) > 0 && (len(joiners) == 0 || p.limits.Max == 1) && (forced || !p.saved(all)):
		return p.reorder(now, all), true // the last ones to leave hold the state until it is on disk
	case len(peers) > p.limits.Max:
		peers = peers[:p.limits.Max]
	}
	peers = slices.Concat(peers, joiners[:min(len(joiners), p.limits.Max-len(peers))])
	return p.reorder(now, peers), p.halting
}

// joiners are the candidates that are not among those already in; those that hold the state come first.
func (p *Policy) joiners(in []job.Peer) []job.Peer {
	var out, others []job.Peer
	holders := p.holders()
	for _, m := range p.candidates() {
		switch peer := m.Peer(); {
		case slices.ContainsFunc(in, func(q job.Peer) bool { return q.ID == m.ID }):
		case slices.Contains(holders, peer):
			out = append(out, peer)
		default:
			others = append(others, peer)
		}
	}
	return append(out, others...)
}

// candidates are the registered members that may be used, oldest first. Each has been heard in this term: for the time of its lease a dead
// process is registered too, and a world with it could not train. One that speaks another protocol could not train either.
func (p *Policy) candidates() []job.Member {
	var out []job.Member
	for _, m := range p.members {
		if s := p.standing(m.ID); p.usable(m) && s.heard && s.told.Resting && !s.suspect {
			out = append(out, m)
		}
	}
	return out
}

// usable says whether a registered member may be in a world, if it is there.
func (p *Policy) usable(m job.Member) bool {
	return !m.Leaving && m.Numerics == p.numerics && m.Speaks() == nil && p.dismissed[m.ID] == "" &&
		p.standing(m.ID).benched.IsZero()
}

// saved says whether what these members hold is durable.
func (p *Policy) saved(peers []job.Peer) bool {
	for _, peer := range peers {
		if t := p.standing(peer.ID).told; !t.Holding || t.Generation != p.world.Generation || t.Step > p.floor {
			return false
		}
	}
	return true
}

// reorder keeps pairs that cannot reach each other from being neighbours. Where no order does, one of them is benched for a while.
func (p *Policy) reorder(now time.Time, peers []job.Peer) []job.Peer {
	for {
		if p.fits(peers) {
			return peers
		}
		if better := p.rearrange(peers); better != nil {
			return better
		}
		out := p.outcast(peers)
		p.bench(now, peers[out].ID)
		peers = slices.Delete(slices.Clone(peers), out, out+1)
	}
}

func (p *Policy) bad(a, b job.Peer) bool { return p.strikes[pairOf(a, b)] >= struckOut }

// fits says whether all neighbours in this ring can reach each other.
func (p *Policy) fits(ring []job.Peer) bool {
	for i := range ring {
		if len(ring) > 1 && p.bad(ring[i], ring[(i+1)%len(ring)]) {
			return false
		}
	}
	return true
}

// rearrange looks for a ring without bad neighbours by placing the members with most bad pairs first; nil when it finds none.
func (p *Policy) rearrange(peers []job.Peer) []job.Peer {
	left := slices.Clone(peers)
	slices.SortStableFunc(left, func(a, b job.Peer) int { return p.enemies(b, peers) - p.enemies(a, peers) })
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

func (p *Policy) enemies(peer job.Peer, among []job.Peer) (n int) {
	for _, other := range among {
		if p.bad(peer, other) {
			n++
		}
	}
	return n
}

// outcast is the index of the member to leave out: the one with most bad pairs, then the one that could not reach its neighbour more
// often (not the one that it accuses), then with the older state, then the youngest.
func (p *Policy) outcast(peers []job.Peer) int {
	out := 0
	for i := range peers {
		a, b := p.standing(peers[out].ID), p.standing(peers[i].ID)
		more := cmp.Or(p.enemies(peers[i], peers)-p.enemies(peers[out], peers), b.helpless-a.helpless)
		if more > 0 || more == 0 && a.told.Step >= b.told.Step {
			out = i
		}
	}
	return out
}

// bench leaves a member out for a while, longer each time in a row, so that two that cannot see each other do not evict each other for ever.
func (p *Policy) bench(now time.Time, id string) {
	s := p.standing(id)
	s.benched = now.Add(min(benchFirst<<min(s.benchings, 10), benchMost))
	s.benchings++
	s.benchedAt = s.told.Step
	s.faults = 0
}

// unbench gives a member another chance: one more failure and it is out again.
func (p *Policy) unbench(id string) {
	s := p.standing(id)
	s.benched, s.faults = time.Time{}, maxFaults-1
	for ids, n := range p.strikes {
		if ids.a == id || ids.b == id {
			p.strikes[ids] = min(n, struckOut-1)
		}
	}
}
