package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

const (
	// reportWait is how long an arbitration waits for the next member that answers to report the generation's end.
	// An abort reaches all members at once: the others wait for a member that stays silent longer.
	reportWait = time.Second
	// probeLost is when a probe without a result counts as silent. The controller's own deadline is far shorter.
	probeLost = 10 * time.Second
)

// arbitration finds the cause of a failed collective and ends with the next world.
type arbitration struct {
	reports int                // of the generation's end
	latest  time.Time          // when it began, or the last report came
	found   map[string]Outcome // by member of the world; 0: its probe is in progress
	settled bool               // reason and late are final
	reason  string
	late    bool // a deadline was probably too short
}

// pair is two members by id, the smaller one first.
type pair struct{ a, b string }

func pairOf(a, b job.Peer) pair { return pair{min(a.ID, b.ID), max(a.ID, b.ID)} }

// tick checks what only time changes: absences, quarantines, suspects and joiners that do not answer yet.
func (p *Policy) tick(now time.Time) []any {
	p.prove()
	var out []any
	examine := func(id string) {
		s := p.standing(id)
		if !s.probing.IsZero() && now.Sub(s.probing) > probeLost {
			p.probed(now, Probed{id, Silent})
		}
		joining := !s.reached && (p.world == nil || p.rank(id) < 0)
		if joining {
			out = append(out, p.unreached(now, id)...)
		}
		if p.world != nil && p.rank(id) < 0 {
			out = append(out, p.hung(now, id)...)
		}
		if s.suspect || joining || !s.absent.IsZero() && now.Sub(s.absent) > p.limits.TTL {
			out = append(out, p.probe(now, id)...)
		}
		if !s.quarantined.IsZero() && !now.Before(s.quarantined) {
			p.release(id)
		}
	}
	for _, peer := range p.peers() {
		examine(peer.ID)
	}
	for _, m := range p.members {
		if p.world == nil || p.rank(m.ID) < 0 {
			examine(m.ID)
		}
	}
	if slices.ContainsFunc(p.peers(), func(peer job.Peer) bool { return p.waits(peer.ID) }) {
		out = append(out, p.probeAll(now)...)
	}
	return append(out, p.missing(now)...)
}

// waits reports whether this member of the world has reported that its collective takes long.
func (p *Policy) waits(id string) bool {
	t := &p.standing(id).report
	return t.Accusation != nil && t.Accusation.Kind == KindWaiting && p.world != nil && p.rank(id) >= 0 &&
		t.Generation == p.world.Generation
}

// probeAll probes all members of a world whose collective takes long. The world goes on if they answer.
func (p *Policy) probeAll(now time.Time) (out []any) {
	for _, peer := range p.peers() {
		out = append(out, p.probe(now, peer.ID)...)
		p.standing(peer.ID).doubted = p.world.Generation
	}
	return out
}

// hangs reports whether the others wait because of a member that did not answer the probe sent at that time: most of
// those that have answered since. One alone may say anything, and silence may be the coordinator's own fault.
func (p *Policy) hangs(id string, sent time.Time) bool {
	if p.world == nil || p.standing(id).doubted != p.world.Generation {
		return false
	}
	waiting, answered := 0, 0
	for _, peer := range p.peers() {
		if peer.ID == id || p.standing(peer.ID).answered.Before(sent) {
			continue
		}
		if answered++; p.waits(peer.ID) {
			waiting++
		}
	}
	return 2*waiting > answered
}

// unreached notes a joiner that stays registered but does not answer: unlike a dead process, it renews its lease.
func (p *Policy) unreached(now time.Time, id string) []any {
	s := p.standing(id)
	if s.unreachedSince.IsZero() {
		s.unreachedSince = now
	}
	if s.named || now.Sub(s.unreachedSince) <= 2*p.limits.TTL {
		return nil
	}
	s.named = true
	m, _ := p.member(id)
	return []any{Note{fmt.Sprintf("%s is registered at %s and does not answer there, so it is not used: check its "+
		"--advertise, and that the coordinator reaches it", id, m.Address)}}
}

func (p *Policy) probe(now time.Time, id string) []any {
	s := p.known[id]
	if s == nil || !s.probing.IsZero() {
		return nil
	}
	s.probing = now
	if m, ok := p.member(id); ok {
		return []any{Probe{id, m.Address}}
	}
	return []any{Probe{id, p.world.Peers[p.rank(id)].Address}}
}

// probed takes a probe's result. Outside an arbitration only these evict: a refused connection, and silence while
// others wait or after a long absence. Silence alone may be the coordinator's own fault.
func (p *Policy) probed(now time.Time, in Probed) {
	s := p.standing(in.Member)
	sent := s.probing
	s.probing = time.Time{}
	switch {
	case in.Outcome == Alive:
		s.suspect, s.silent, s.reached, s.answered = false, false, true, now
	case in.Outcome == Refused, p.world == nil || p.rank(in.Member) < 0,
		!s.absent.IsZero() && now.Sub(s.absent) > p.limits.TTL, p.hangs(in.Member, sent):
		s.suspect, s.silent = true, in.Outcome == Silent
	}
	s.doubted = 0
	if p.arbitration != nil {
		if _, asked := p.arbitration.found[in.Member]; asked {
			p.arbitration.found[in.Member] = in.Outcome
		}
	}
}

// present reports whether the world's process of this member seems to be alive. A missing registration does not change
// that: leases admit, they do not evict.
func (p *Policy) present(peer job.Peer) bool {
	m, registered := p.member(peer.ID)
	return !p.standing(peer.ID).suspect && (!registered || m.Address == peer.Address)
}

// reportsFailure reports whether a member of the world has reported that its collective failed.
func (p *Policy) reportsFailure(peer job.Peer) bool { return p.accusation(peer.ID) != nil }

func (p *Policy) accusation(id string) *Accusation {
	t := &p.standing(id).report
	// a report of another generation is void
	if t.Accusation == nil || p.world == nil || t.Generation != p.world.Generation || p.waits(id) {
		return nil
	}
	return t.Accusation
}

// arbitrate probes all members of a world whose collective failed, waits for their reports, and publishes the next
// world.
func (p *Policy) arbitrate(now time.Time) []any {
	q := p.arbitration
	if q == nil {
		q = &arbitration{latest: now, found: map[string]Outcome{}}
		p.arbitration = q
		var out []any
		for _, peer := range p.world.Peers {
			q.found[peer.ID] = 0
			out = append(out, p.probe(now, peer.ID)...)
		}
		return out
	}
	if !q.settled && !p.settle(now) {
		if p.arbitration == nil {
			return p.note("members report that their collective failed, and none of them answers a probe: this " +
				"coordinator may be cut off from them, or too busy")
		}
		return nil
	}
	if p.failure != "" {
		return []any{Fail{p.failure}}
	}
	return p.publish(now, q.reason, true, q.late)
}

// settle ends the arbitration if nothing more can be learned.
func (p *Policy) settle(now time.Time) bool {
	q, reports, silent := p.arbitration, 0, 0
	for _, peer := range p.world.Peers {
		switch q.found[peer.ID] {
		case 0:
			return false
		case Silent:
			silent++
		}
		if p.reportsFailure(peer) {
			reports++
		}
	}
	// they reported the failure, but none answers: the coordinator itself may be cut off
	if silent == len(p.world.Peers) {
		p.arbitration = nil
		return false // the next input starts again
	}
	if reports != q.reports {
		q.reports, q.latest = reports, now
	}
	if silent == 0 && reports < len(p.world.Peers) && now.Sub(q.latest) < reportWait {
		return false
	}
	// The others may be in a long step, or read of a new world late: what a few say settles nothing before.
	if silent == 0 && 2*reports < len(p.world.Peers) && now.Sub(p.observed) < enterWithin<<min(p.world.Backoff, 1) &&
		slices.ContainsFunc(p.world.Peers, func(peer job.Peer) bool {
			return !p.reportsFailure(peer) && !p.entered(peer)
		}) {
		return false
	}
	q.settled = true
	if silent > 0 {
		for id, outcome := range q.found {
			if outcome == Silent {
				s := p.standing(id)
				s.suspect, s.silent = true, true
			}
		}
		q.reason = p.losses()
	} else {
		q.reason, q.late = p.blame(now)
	}
	return true
}

// losses names the members that are gone, for people: every member logs it.
func (p *Policy) losses() string {
	var parts []string
	for rank, peer := range p.world.Peers {
		s := p.standing(peer.ID)
		switch {
		case s.suspect && s.silent:
			parts = append(parts, fmt.Sprintf("%s (rank %d) does not answer", peer.ID, rank))
		case s.suspect:
			parts = append(parts, fmt.Sprintf("%s (rank %d) is gone", peer.ID, rank))
		case !p.present(peer):
			parts = append(parts, fmt.Sprintf("%s (rank %d) is another process now", peer.ID, rank))
		}
	}
	return strings.Join(parts, "; ")
}
