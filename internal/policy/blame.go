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
	charged map[string]string // likewise: failures that are laid to it, although it may be well
	late    bool
	void    bool
	verdict string
}

// blame finds the cause when all members answer: the end of the wait-for graph, pairs that cannot reach each other,
// deadlines that were too short, or a job that cannot go on.
func (p *Policy) blame(now time.Time) (reason string, late bool) {
	f := findings{broken: map[pair]bool{}, faulty: map[string]string{}, charged: map[string]string{}}
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
		// the world, the reports of fewer than half do not settle that
		if f.late && !p.reportsFailure(peer) && (2*reports >= p.world.Size() || !p.entered(peer)) {
			f.fault(peer.ID, fmt.Sprintf("%s (rank %d) kept the others waiting", peer.ID, rank))
		}
	}
	if len(f.faulty) == len(p.world.Peers) && f.late { // all of them: they only lacked time
		clear(f.faulty)
	}
	if p.causeless(&f); p.world.Size() > 2 {
		p.chargeAlone(&f)
	}
	for ids := range f.broken {
		p.broken(ids)
	}
	maps.Copy(f.charged, f.faulty)
	for id, why := range f.charged {
		_, fault := f.faulty[id]
		if !p.charge(id, fault) {
			continue
		}
		s, a := p.standing(id), p.accusation(id)
		if s.faults >= maxFaults {
			f.parts = append(f.parts, fmt.Sprintf("%s left out for a while after %d in a row", id, maxFaults))
		} else {
			f.parts = append(f.parts, fmt.Sprintf("%s left out for a while after %d failures", id, s.charges))
		}
		p.quarantine(now, id, a == nil || !a.names() && a.Kind != KindOther && a.Kind != KindFetch)
		if s.quarantines > maxQuarantines {
			p.dismiss(id, why)
		}
	}
	slices.Sort(f.parts)
	if len(f.parts) == 0 {
		return "the collective failed", f.late
	}
	return strings.Join(slices.Compact(f.parts), "; "), f.late
}

// chargeAlone charges the members that accuse another one alone: it does not accuse them, no other one accuses it,
// and it has no fault of its own. Once that proves nothing, but one member that does so again and again is at fault,
// or behind a bad network.
func (p *Policy) chargeAlone(f *findings) {
	accusers := map[string]int{}
	for _, peer := range p.world.Peers {
		if a := p.accusation(peer.ID); a.names() {
			accusers[a.Suspect]++
		}
	}
	for _, peer := range p.world.Peers {
		a := p.accusation(peer.ID)
		if !a.names() || accusers[a.Suspect] > 1 {
			continue
		}
		b := p.accusation(a.Suspect)
		if b == nil || b.names() && b.Suspect == peer.ID || f.faulty[a.Suspect] != "" {
			continue
		}
		p.standing(peer.ID).helpless++
		f.charged[peer.ID] = fmt.Sprintf("%s accused %s, alone", peer.ID, a.Suspect)
	}
}

// causeless finds the member behind a failure of which none gives a cause. One that passes on what a neighbour said is
// behind it if that one says the same of it, or is no neighbour.
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
		switch of := p.rank(a.Suspect); {
		case of < 0 || of != (rank+1)%n && of != (rank+n-1)%n:
			f.charged[peer.ID] = fmt.Sprintf("%s ended a collective and gave no cause", peer.ID)
			f.parts = append(f.parts, f.charged[peer.ID])
		case p.accusation(a.Suspect) != nil && p.accusation(a.Suspect).Suspect == peer.ID:
			f.broken[pairOf(peer, p.world.Peers[of])] = true
			f.parts = append(f.parts, fmt.Sprintf("%s ended a collective because of %s, which did so because of it",
				peer.ID, a.Suspect))
		}
	}
}

// names reports whether an accusation gives a cause that is another member.
func (a *Accusation) names() bool {
	return a != nil && a.Suspect != "" &&
		slices.Contains([]string{KindBroken, KindProtocol, KindUnreachable, KindDeadline}, a.Kind)
}

func (f *findings) fault(id, why string) {
	f.faulty[id] = why
	f.parts = append(f.parts, why)
}

// weigh adds one member's accusation to the findings.
func (p *Policy) weigh(f *findings, reporter job.Peer, a *Accusation) {
	suspect := p.rank(a.Suspect)
	switch {
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
	case a.Paused:
		f.void = true
		f.parts = append(f.parts, fmt.Sprintf("%s was paused, its accusation of %s is void", reporter.ID, a.Suspect))
		return
	}
	switch a.Kind {
	case KindDeadline:
		f.late = true
	case KindUnreachable:
		if strings.HasPrefix(a.Phase, "connect") {
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
