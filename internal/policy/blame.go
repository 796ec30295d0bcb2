package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

// findings is the result of weighing the accusations.
type findings struct {
	parts   []string
	broken  map[pair]bool
	faulty  map[string]string // by member: what it did
	charged map[string]bool   // members that a failure is laid to, although they may be well
	doubted map[pair]bool     // one of the two, alone, says that the other is late
	paused  []string
	late    bool
	void    bool
	verdict string
}

// blame finds the cause when all members answer: the end of the wait-for graph, pairs that cannot reach each other,
// deadlines that were too short, or a job that cannot go on.
func (p *Policy) blame(now time.Time) (reason string, late bool) {
	f := findings{broken: map[pair]bool{}, faulty: map[string]string{}, charged: map[string]bool{},
		doubted: map[pair]bool{}}
	p.step = max(p.step, p.committed())
	for _, reporter := range p.world.Peers {
		if a := p.accusation(reporter.ID); a != nil {
			p.weigh(&f, reporter, a)
		}
	}
	if p.failure = f.verdict; p.failure != "" {
		return p.failure, false
	}
	if p.voids++; !f.void || f.late {
		p.voids = 0
	}
	f.late = f.late || p.voids >= maxVoid // on a starved machine all accusations are void, but all members are slow
	reports := len(p.world.Peers) - len(reject(p.world.Peers, p.reportsFailure))
	for rank, peer := range p.world.Peers {
		// no report: the end of the wait-for graph. It may wait itself, to connect or for a state. If it has entered
		// the world, the reports of fewer than half do not settle that; if not, nothing does before all had the time
		inTime := p.entered(peer) || now.Sub(p.observed) >= connectFloor<<p.world.Backoff
		if f.late && !p.reportsFailure(peer) && inTime && (2*reports >= p.world.Size() || !p.entered(peer)) {
			f.fault(peer.ID, fmt.Sprintf("%s (rank %d) kept the others waiting", peer.ID, rank))
		}
	}
	if len(f.faulty) == len(p.world.Peers) && f.late { // all of them: they only lacked time
		clear(f.faulty)
	}
	p.causeless(&f)
	p.alone(&f)
	for ids := range f.broken {
		p.broken(ids, true)
	}
	for ids := range f.doubted {
		p.broken(ids, false)
	}
	p.charge(now, &f)
	slices.Sort(f.parts)
	if len(f.parts) == 0 {
		return "the collective failed", f.late
	}
	return strings.Join(slices.Compact(f.parts), "; "), f.late
}

// charge counts the failure against those that it is laid to, and leaves out those that have too many.
func (p *Policy) charge(now time.Time, f *findings) {
	if 2*len(f.paused) < p.world.Size() { // otherwise it was their machine that stood still
		for _, id := range f.paused {
			f.charged[id] = true
		}
	}
	for id := range f.faulty {
		p.standing(id).faults++
		f.charged[id] = true
	}
	for id := range f.charged {
		s := p.standing(id)
		if s.tally = p.mark(); p.world.Size() > 2 { // of two, nothing shows which is at fault
			s.charges++
		}
	}
	for _, id := range slices.Sorted(maps.Keys(f.charged)) {
		s, a := p.standing(id), p.accusation(id)
		blamed := a == nil || a.Suspect != "" && a.Suspect != id
		switch {
		case s.faults >= maxFaults:
			p.quarantine(now, id, blamed)
			f.parts = append(f.parts, fmt.Sprintf("%s left out for a while after %d in a row", id, maxFaults))
			if a != nil && blamed { // it could not fetch from another: that may be the other's fault
				break
			}
			if s.inRow++; s.inRow > maxQuarantines {
				p.dismiss(id, f.faulty[id])
			}
		case s.charges >= maxCharges && p.worst(id) && p.dispensable():
			p.quarantine(now, id, blamed)
			f.parts = append(f.parts, fmt.Sprintf("%s left out for a while after %d failures", id, s.charges))
		}
	}
}

// worst reports whether more failures are laid to a member than to any other.
func (p *Policy) worst(id string) bool {
	charges := p.standing(id).charges
	for other, s := range p.known {
		if other != id && s.charges >= charges {
			return false
		}
	}
	return true
}

// dispensable reports whether most of all that are there stay, if one more is left out.
func (p *Policy) dispensable() bool {
	out := 0
	for _, s := range p.known {
		if !s.quarantined.IsZero() {
			out++
		}
	}
	in := len(reject(p.world.Peers, func(peer job.Peer) bool { return !p.standing(peer.ID).quarantined.IsZero() }))
	return in-1 >= out+1
}

func (f *findings) fault(id, why string) {
	f.faulty[id] = why
	f.parts = append(f.parts, why)
}

// weigh adds one member's accusation to the findings.
func (p *Policy) weigh(f *findings, reporter job.Peer, a *Accusation) {
	suspect := p.rank(a.Suspect)
	switch {
	case a.Suspect == reporter.ID:
		f.fault(reporter.ID, fmt.Sprintf("%s could not go on (%s)", reporter.ID, job.Clean(a.Detail)))
		return
	case a.Kind == KindOther && suspect < 0:
		f.fault(reporter.ID, fmt.Sprintf("%s could not go on (%s)", reporter.ID, job.Clean(a.Detail)))
		if verdict := p.ownFault(reporter.ID, a); verdict != "" {
			f.verdict = verdict
		}
		return
	case a.Kind == KindFetch && (suspect >= 0 || a.Suspect == ""):
		f.late = true
		f.fault(p.unfetched(reporter.ID, a.Suspect), fmt.Sprintf("%s could not fetch the state (%s)",
			reporter.ID, job.Clean(a.Detail)))
		return
	case suspect < 0:
		return
	case a.Paused && a.names():
		f.void, f.paused = true, append(f.paused, reporter.ID)
		f.parts = append(f.parts, fmt.Sprintf("%s was paused, its accusation of %s is void", reporter.ID, a.Suspect))
		return
	}
	switch a.Kind {
	case KindDeadline:
		f.late = true
	case KindUnreachable:
		if a.connects() {
			p.standing(reporter.ID).helpless++
		}
		if p.reportsFailure(p.world.Peers[suspect]) {
			f.broken[pairOf(reporter, p.world.Peers[suspect])] = true
		} else {
			f.late = true
		}
	case KindBroken, KindProtocol:
		f.broken[pairOf(reporter, p.world.Peers[suspect])] = true
	default: // relayed: the member that it came from names the culprit
		return
	}
	f.parts = append(f.parts, fmt.Sprintf("%s waited for %s (%s, %s) and both answer", reporter.ID, a.Suspect, a.Kind,
		strings.TrimSpace(job.Clean(a.Phase))))
}

// alone counts accusations that no other member shares: the accused does not accuse the accuser, and has no fault of
// its own. Which of the two is at fault is not known, so it counts against both and their link: a member that is at
// fault again and again has another one beside it in time, and then more than each of these.
func (p *Policy) alone(f *findings) {
	if p.world.Size() <= 2 {
		return
	}
	accusers := map[string]int{}
	for _, peer := range p.world.Peers {
		if a := p.accusation(peer.ID); a.names() {
			accusers[a.Suspect]++
		}
	}
	for _, peer := range p.world.Peers {
		a := p.accusation(peer.ID)
		if !a.names() || a.Paused || accusers[a.Suspect] > 1 || a.Suspect == peer.ID {
			continue
		}
		b := p.accusation(a.Suspect)
		if b == nil || b.names() && b.Suspect == peer.ID || f.faulty[a.Suspect] != "" {
			continue
		}
		s, ids := p.standing(peer.ID), pairOf(peer, p.world.Peers[p.rank(a.Suspect)])
		if !a.connects() {
			s.helpless++
		}
		f.charged[peer.ID], f.charged[a.Suspect] = true, true
		if !f.broken[ids] {
			f.doubted[ids] = true
		}
	}
}

// causeless finds the member behind a failure of which none gives a cause. One that passes on what a neighbour said is
// behind it if that one says the same of it, or is no neighbour; and so is a neighbour that says nothing.
func (p *Policy) causeless(f *findings) {
	if len(f.parts) > 0 || p.world.Size() == 1 {
		return
	}
	n := p.world.Size()
	for rank, peer := range p.world.Peers {
		a := p.accusation(peer.ID)
		if a == nil {
			continue
		}
		switch of, b := p.rank(a.Suspect), p.accusation(a.Suspect); {
		case of < 0 || of != (rank+1)%n && of != (rank+n-1)%n:
			f.charged[peer.ID] = true
			f.parts = append(f.parts, fmt.Sprintf("%s ended a collective and gave no cause", peer.ID))
		case b == nil:
			f.charged[a.Suspect] = true
			f.parts = append(f.parts, fmt.Sprintf("%s ended a collective and said nothing", a.Suspect))
		case b.Suspect == peer.ID:
			f.broken[pairOf(peer, p.world.Peers[of])] = true
			f.charged[peer.ID] = true
			f.parts = append(f.parts, fmt.Sprintf("%s ended a collective because of %s, which did so because of it",
				peer.ID, a.Suspect))
		}
	}
}

// connects reports whether a neighbour could not be reached.
func (a *Accusation) connects() bool {
	return a.Kind == KindUnreachable && strings.HasPrefix(a.Phase, "connect")
}

// names reports whether an accusation gives a cause that is another member.
func (a *Accusation) names() bool {
	return a != nil && a.Suspect != "" &&
		slices.Contains([]string{KindBroken, KindProtocol, KindUnreachable, KindDeadline}, a.Kind)
}
