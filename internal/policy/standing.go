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
	blamed         bool      // it is quarantined by the word of others
	faults         int       // collectives in a row that failed because of it although it answers
	tally                    // since it last proved itself
	charges        int       // likewise: failed collectives that are laid to it
	helpless       int       // likewise: those in which it could not reach its neighbour, or accused it alone
	quarantines    int       // likewise
	inRow          int       // likewise: those for faults in a row
	unrested       time.Time // since when it is out of the world but does not rest; zero: it rests
	stuck          bool      // a note said so
}

// link is how often a pair of members could not reach each other, or one of them alone said so.
type link struct {
	tally
	failures int // since it last proved itself
	row      int // in a row, without a world that opened
}

// tally says when a count was last raised. It is cleared when most have committed provenSteps since, or provenTime has
// passed: the word of one clears none, and what is rare is forgiven. A member that registers again begins at 0.
type tally struct {
	from int64
	at   time.Time
}

// mark is the tally of a count that is raised now.
func (p *Policy) mark() tally {
	p.proving = true
	return tally{p.step, p.now}
}

func (p *Policy) proven(t tally) bool {
	return p.step >= t.from+provenSteps || p.now.Sub(t.at) > provenTime
}

// standing returns a member's standing; of a stranger, a new one that is not kept.
func (p *Policy) standing(id string) *standing {
	if s := p.known[id]; s != nil {
		return s
	}
	return &standing{}
}

// open records that the members of the present generation have agreed on a state, and that it works: most of them, or
// one of two, have committed or hold a state. Then failures in a row are over.
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
		if n := len(p.steps()); n == 0 || n <= p.world.Size()/2 && p.world.Size() > 2 {
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

// broken counts a failure between two members. inRow: if it comes again before a world opens, they are kept apart.
func (p *Policy) broken(ids pair, inRow bool) {
	l := p.links[ids]
	if l == nil {
		l = &link{}
		p.links[ids] = l
	}
	if inRow {
		l.row++
	}
	if p.world.Size() > 2 {
		l.failures++
	}
	l.tally = p.mark()
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

// prove clears the counts of members and links that have proved themselves: of members of the present world, and of
// links between two of them. What is quarantined proves nothing.
func (p *Policy) prove() {
	if !p.proving {
		return
	}
	step := p.committed()
	p.step = max(p.step, step)
	maps.DeleteFunc(p.own, func(_ string, f ownFault) bool { return f.step < step })
	maps.DeleteFunc(p.links, func(ids pair, l *link) bool {
		return p.rank(ids.a) >= 0 && p.rank(ids.b) >= 0 && p.proven(l.tally)
	})
	p.proving = len(p.own)+len(p.links) > 0
	for id, s := range p.known {
		if p.rank(id) >= 0 && s.quarantined.IsZero() && p.proven(s.tally) {
			s.charges, s.helpless, s.quarantines, s.inRow = 0, 0, 0, 0
		}
		if s.quarantined.IsZero() && p.now.Sub(s.at) > provenTime {
			s.faults = 0
		}
		p.proving = p.proving || s.faults+s.charges+s.helpless+s.quarantines > 0
	}
}
