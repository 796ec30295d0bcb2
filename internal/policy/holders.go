package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

// holders are the members that may have the newest committed state.
//
// The members of a world commit steps after all have agreed on one state, and each step takes all of them. So the
// newest committed state is with the members of the newest world that agreed. Of the present world the policy knows
// that it agreed (a member says so), that it did not (ended), or neither.
//
// In the next world the states of one kind of members count, the first of these that has a peer there:
//
//	stayed    no state is newer than theirs, whatever became of the present world
//	away      not in the present world: no state is newer if that did not agree
//	doubted   an earlier world may have agreed without them
//	joined    in the present world without such a state: theirs is the newest if that agreed
//
// If none has one, only a state that most of the next world has counts (Choose): no single member is believed.
//
// Those that are away count beside those that stayed if the present world did not agree. If that is not known, they are
// in doubt from the next world on, as those that joined are: its record says so. Members of a better kind that may come
// back, and the words of those that joined, are waited for, one TTL at most.
type holders struct{ stayed, away, doubted []job.Peer }

func (p *Policy) holders() (h holders) {
	if p.world == nil {
		return h
	}
	if p.agreed == p.world.Generation {
		h.stayed = reject(p.world.Peers, func(peer job.Peer) bool { return p.standing(peer.ID).reborn })
		return h
	}
	old := among(p.doubted)
	h.stayed = reject(p.world.Peers, func(peer job.Peer) bool {
		return p.fresh[peer.ID] || old(peer) || p.restarted(peer)
	})
	h.away, h.doubted = reject(p.away, p.isNew), reject(p.doubted, p.isNew)
	return h
}

func (h holders) all() []job.Peer { return slices.Concat(h.stayed, h.away, h.doubted) }

// restarted reports whether a member's process took the place of the one that had a state.
func (p *Policy) restarted(peer job.Peer) bool {
	s := p.standing(peer.ID)
	return s.reborn || p.entered(peer) && s.report.Step < 0
}

// entered reports whether a member has reported from the present world.
func (p *Policy) entered(peer job.Peer) bool {
	report := p.standing(peer.ID).report
	return report.Member != "" && report.Generation == p.world.Generation
}

// isNew reports the same of a member that is not in the present world, or has not entered it.
func (p *Policy) isNew(peer job.Peer) bool {
	report := p.standing(peer.ID).report
	return report.Member != "" && report.Generation == 0 || p.restarted(peer)
}

// counting are the peers whose states count in a world of these peers, and doubted the members whose states are in
// doubt from that world on.
func (p *Policy) counting(h holders, peers []job.Peer) (counting, doubted []job.Peer) {
	if doubted = h.doubted; !p.ended() {
		doubted = slices.Concat(doubted, h.away)
	}
	stayed, away := both(peers, h.stayed), both(peers, h.away)
	joined := without(p.unsure(), slices.Concat(h.stayed, doubted))
	if len(stayed) == 0 {
		doubted = slices.Concat(doubted, joined)
	}
	switch old := both(peers, h.doubted); {
	case len(stayed) > 0 && p.ended():
		return append(stayed, away...), doubted
	case len(stayed) > 0:
		return stayed, doubted
	case len(away) > 0:
		return away, doubted
	case len(old) > 0:
		return old, doubted
	}
	return both(peers, joined), doubted
}

// ended reports whether the present world is over without an agreement: no step of it was committed.
func (p *Policy) ended() bool {
	return p.world != nil && p.agreed != p.world.Generation && (p.world.Size() == 0 ||
		p.most(func(peer job.Peer) bool {
			return p.reportsFailure(peer) && !p.agrees(peer) && !p.standing(peer.ID).reborn
		}))
}

// agrees reports whether this member of the present world has said that all of it had one state.
func (p *Policy) agrees(peer job.Peer) bool { return p.standing(peer.ID).agreed == p.world.Generation }

// most reports whether the present world says something: a strict majority of it, or all that are there and report. A
// process that took the place of one with a state does not know what became of that one's world. If all that say it
// have no state, they may be such, which a new term does not see: less than a majority of them is not enough while a
// member that may be alive has not reported to it.
func (p *Policy) most(says func(job.Peer) bool) bool {
	n, others, quiet, knows := 0, 0, 0, false
	for _, peer := range p.world.Peers {
		switch {
		case !p.fresh[peer.ID] && p.restarted(peer):
		case says(peer):
			n++
			knows = knows || p.standing(peer.ID).report.Step >= 0
		case p.present(peer) && (p.entered(peer) || p.now.Sub(p.observed) <= p.limits.TTL):
			others++
		case p.quiet(peer):
			quiet++
		}
	}
	return 2*n > p.world.Size() || n > 0 && others == 0 && (knows || quiet == 0)
}

// unsure are the members that are in the present world, which may have agreed; or which has, and they do not say so. If
// all of them were fresh, it went on from the disk, or from what most of them have: that needs no doubt, unless it may
// have trained before this term.
func (p *Policy) unsure() []job.Peer {
	if p.world == nil || p.ended() {
		return nil
	}
	agreed, allFresh := p.agreed == p.world.Generation, len(p.fresh) == p.world.Size()
	return reject(p.world.Peers, func(peer job.Peer) bool {
		switch {
		case !p.present(peer) && !p.quiet(peer) || p.replaced(peer):
			return true
		case agreed:
			return !p.unheard(peer) || p.reportsFailure(peer)
		}
		return allFresh && !p.unreported(peer) && !p.agrees(peer)
	})
}

// replaced reports whether another process had this id when the present world was published, or joined it.
func (p *Policy) replaced(peer job.Peer) bool {
	s := p.standing(peer.ID)
	return s.reborn && (!p.fresh[peer.ID] || s.rebornIn >= p.world.Generation)
}

// unheard reports whether a member that joined a world which has agreed does not say so now: it may be another process.
func (p *Policy) unheard(peer job.Peer) bool {
	return p.fresh[peer.ID] && (!p.agrees(peer) || p.standing(peer.ID).cutOff)
}

// awaited are the members that a forced world of these peers must wait for: the first reports to a successor; if none
// stayed, the words of those that joined, and members of a better kind than the peers are.
func (p *Policy) awaited(h holders, peers []job.Peer) []job.Peer {
	out := reject(p.peers(), func(peer job.Peer) bool { return !p.present(peer) || !p.unreported(peer) })
	if p.world != nil && p.agreed == p.world.Generation {
		h.stayed = reject(h.stayed, p.unheard)
	}
	missed := h.all()
	// One whose stream has ended may be another process by now, without a state: its next report says so.
	known := h
	known.stayed = reject(h.stayed, func(peer job.Peer) bool { return p.standing(peer.ID).cutOff })
	switch kind := known.kind(peers); {
	case kind == 0, kind == 1 && p.ended(): // those that stayed have no newer states
		return out
	case kind == 1:
		missed = h.stayed
	case kind == 2:
		missed = slices.Concat(h.stayed, h.away)
	}
	out = append(out, without(p.unsure(), out)...)
	missed = reject(missed, func(peer job.Peer) bool { return !p.mayReturn(peer) })
	return append(out, without(missed, out)...)
}

// kind is the best one that has a peer among these: 0 (stayed), 1 (away), 2 (doubted), 3 (none).
func (h holders) kind(peers []job.Peer) (kind int) {
	for _, members := range [][]job.Peer{h.stayed, h.away, h.doubted} {
		if len(both(peers, members)) > 0 {
			return kind
		}
		kind++
	}
	return kind
}

// unreported reports whether this member of the world that the term found has sent no report yet, and no member has
// said that the world agreed.
func (p *Policy) unreported(peer job.Peer) bool {
	return p.found == p.world.Generation && p.agreed != p.found && p.standing(peer.ID).report.Member == ""
}

// quiet reports whether an unreported member may be alive, so that it may yet say that the world agreed.
func (p *Policy) quiet(peer job.Peer) bool {
	return p.unreported(peer) && (p.present(peer) || p.mayReturn(peer))
}

// mayReturn reports whether a member that does not answer, or does not rest yet, may be alive.
func (p *Policy) mayReturn(peer job.Peer) bool {
	m, registered := p.member(peer.ID)
	s := p.standing(peer.ID)
	return registered && m.Peer() == peer && p.usable(m) && (!s.suspect || s.silent)
}

// early reports whether a forced world must wait for a report or a holder, and says so if it takes long.
func (p *Policy) early(now time.Time, reason string, peers []job.Peer) (wait bool, out []any) {
	awaited := p.awaited(p.holders(), peers)
	if len(awaited) == 0 {
		p.waitingSince = time.Time{}
		return false, nil
	}
	if p.waitingSince.IsZero() {
		p.waitingSince = now
	}
	waited := now.Sub(p.waitingSince)
	if waited > p.limits.TTL {
		return false, nil
	}
	if waited >= reportWait {
		out = p.note(cut(fmt.Sprintf("%s; waiting %v at most for %s, which may have the newest state or know of it",
			reason, p.limits.TTL, strings.Join(job.World{Peers: awaited}.IDs(), ", "))))
	}
	return true, out
}

// both are the peers that are among the others, too.
func both(peers, others []job.Peer) []job.Peer {
	in := among(others)
	return reject(peers, func(p job.Peer) bool { return !in(p) })
}

// without are the peers that are not among the others.
func without(peers, others []job.Peer) []job.Peer { return reject(peers, among(others)) }

// among reports whether a peer is one of these.
func among(peers []job.Peer) func(job.Peer) bool {
	in := make(map[job.Peer]bool, len(peers))
	for _, p := range peers {
		in[p] = true
	}
	return func(p job.Peer) bool { return in[p] }
}

// reject are the peers for which out is false.
func reject(peers []job.Peer, out func(job.Peer) bool) []job.Peer {
	return slices.DeleteFunc(slices.Clone(peers), out)
}
