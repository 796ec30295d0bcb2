package policy

import (
	"maps"
	"slices"
	"time"
)

// standing is what the policy knows about a member, besides its record.
type standing struct {
	report         Report
	agreed         int64     // the newest generation of which it said that all members had one state
	reborn         bool      // another process had this id in the newest generation that opened
	rebornIn       int64     // the newest generation, published or not, when that was noticed
	cutOff         bool      // its stream has ended since its last report: another process may have its id now
	reached        bool      // it reported or answered a probe: a dead process may still be registered
	unreachedSince time.Time // since when this joiner has not been reached; zero: it has been
	named          bool      // a note said that it does not answer
	probing        time.Time // since when a probe is in progress; zero: none is
	answered       time.Time // when it last answered a probe
	doubted        int64     // the generation that the probe in progress was sent for, because members wait
	silent         bool      // it is suspect because it did not answer a probe
	suspect        bool      // the last probe failed: not used until one succeeds
	absent         time.Time // since when this member of the world is not registered; zero: it is registered
	quarantined    time.Time // not used until then; zero: not quarantined
	quarantines    int       // since it last proved itself
	blamed         bool      // it is quarantined by the word of others
	faults         int       // collectives in a row that failed because of it although it answers
	charges        int       // failed collectives that are laid to it since it last proved itself
	helpless       int       // those in which it could not reach its neighbour, or accused it alone
	provenFrom     int64     // the step from which provenSteps prove it
	unrested       time.Time // since when it is out of the world but does not rest; zero: it rests
	stuck          bool      // a note said so
}

// link is how often a pair of members could not reach each other.
type link struct {
	failures int   // since it last proved itself
	row      int   // of those: in a row, without a world that opened
	from     int64 // the step from which provenSteps prove it
}

// standing returns a member's standing; of a stranger, a new one that is not kept.
func (p *Policy) standing(id string) *standing {
	if s := p.known[id]; s != nil {
		return s
	}
	return &standing{}
}

// open records that the members of the present generation have agreed on a state, and that it works: most of them have
// committed or hold a state. Then failures in a row are over.
func (p *Policy) open() {
	if p.world == nil {
		return
	}
	if p.agreed != p.world.Generation {
		if !slices.ContainsFunc(p.world.Peers, p.agrees) {
			return
		}
		p.agreed = p.world.Generation
		for _, peer := range p.world.Peers {
			p.standing(peer.ID).reborn = false
		}
	}
	if p.opened != p.world.Generation {
		if len(p.steps()) <= p.world.Size()/2 {
			return
		}
		p.opened = p.agreed
		p.unopened, p.voids = 0, 0
		clear(p.fetches)
		for i, peer := range p.world.Peers {
			p.standing(peer.ID).faults = 0
			if l := p.links[pairOf(peer, p.world.Peers[(i+1)%p.world.Size()])]; l != nil {
				l.row = 0
			}
		}
	}
	p.prove()
}

// broken counts a failure between two members.
func (p *Policy) broken(ids pair) {
	l := p.links[ids]
	if l == nil {
		l = &link{}
		p.links[ids] = l
	}
	l.failures, l.row, l.from, p.proving = l.failures+1, l.row+1, p.step, true
}

// charge lays a failed collective to a member. It reports whether there were so many that it is left out.
func (p *Policy) charge(id string, fault bool) (enough bool) {
	s := p.standing(id)
	if s.charges++; fault {
		s.faults++
	}
	s.provenFrom, p.proving = p.step, true
	return s.faults >= maxFaults || s.charges >= maxCharges
}

// steps are those that members of the present generation have committed or hold.
func (p *Policy) steps() (steps []int64) {
	for _, peer := range p.peers() {
		r := &p.standing(peer.ID).report
		if r.Generation == p.world.Generation && (r.Committed || r.Holding) {
			steps = append(steps, r.Step)
		}
	}
	return steps
}

// committed is the newest step that most of the present world have committed or hold; -1: none.
func (p *Policy) committed() int64 {
	steps := p.steps()
	if missing := len(p.peers()) - len(steps); 2*missing < len(p.peers()) {
		slices.Sort(steps)
		return steps[(len(p.peers())-1)/2-missing]
	}
	return -1
}

// prove clears the counts of members and links of the present world that have lasted for provenSteps: no member clears
// its own.
func (p *Policy) prove() {
	if !p.proving {
		return
	}
	p.step, p.proving = max(p.step, p.committed()), false
	maps.DeleteFunc(p.own, func(_ string, f ownFault) bool { return f.step < p.step })
	for i, peer := range p.world.Peers {
		if s := p.standing(peer.ID); p.step >= s.provenFrom+provenSteps {
			s.charges, s.helpless, s.quarantines = 0, 0, 0
		}
		ids := pairOf(peer, p.world.Peers[(i+1)%p.world.Size()])
		if l := p.links[ids]; l != nil && p.step >= l.from+provenSteps {
			delete(p.links, ids)
		}
	}
	p.proving = len(p.own)+len(p.links) > 0
	for _, s := range p.known {
		p.proving = p.proving || s.charges+s.quarantines > 0
	}
}
