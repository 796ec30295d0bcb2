package coordinator

import (
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
	"evenweave/proto"
)

const (
	maxWorlds    = 64   // of a term that are remembered: who agreed on a state may not be in the present one
	maxFollowers = 4096 // members that are followed
)

// No single member is believed. What decides is what a strict majority of a world tells; members of the present one that have not been heard for
// `hearing` do not count where all others agree. Everything here is a function of what was told; nothing waits.

// proofs keeps the hash of each due state that a strict majority of the world that agreed on it has told.
type proofs struct {
	worlds  []job.World          // of this term, oldest first
	agreed  map[int64]string     // SHA-256 by step
	offered map[int64]time.Time  // since when a state without a proof is on offer
	silent  map[string]time.Time // by member of the present world that is not heard: since when
}

func newProofs() *proofs {
	return &proofs{agreed: map[int64]string{}, offered: map[int64]time.Time{}, silent: map[string]time.Time{}}
}

// present is the newest world.
func (p *proofs) present() (w job.World, ok bool) {
	if len(p.worlds) == 0 {
		return job.World{}, false
	}
	return p.worlds[len(p.worlds)-1], true
}

// enter takes a newer world.
func (p *proofs) enter(w job.World, now time.Time) {
	if last, ok := p.present(); ok && last.Generation >= w.Generation {
		return
	}
	p.worlds = append(p.worlds, w)
	if len(p.worlds) > maxWorlds {
		p.worlds = slices.Delete(p.worlds, 0, 1)
	}
	p.silent = map[string]time.Time{}
	for _, peer := range w.Peers {
		p.silent[peer.ID] = now
	}
}

// used says whether a world of this term used that process.
func (p *proofs) used(generation int64, member, address string) bool {
	i := slices.IndexFunc(p.worlds, func(w job.World) bool { return w.Generation == generation })
	return i >= 0 && slices.Contains(p.worlds[i].Peers, job.Peer{ID: member, Address: address})
}

// saved forgets what a durable step makes void.
func (p *proofs) saved(step int64) {
	before := func(s int64) bool { return s <= step }
	maps.DeleteFunc(p.agreed, func(s int64, _ string) bool { return before(s) })
	maps.DeleteFunc(p.offered, func(s int64, _ time.Time) bool { return before(s) })
}

// claim is that a member, a process at an address, holds a state.
type claim struct {
	member, address string
	held            *proto.HeldState
}

// hear records each hash that a strict majority of the world that agreed on it claims. A member may claim the same state several times: it has one vote.
func (p *proofs) hear(claims []claim) {
	type state struct {
		step, generation int64
		hash             string
	}
	type vote struct {
		state
		member string
	}
	votes, voted := map[state]int{}, map[vote]bool{}
	for _, c := range claims {
		i := slices.IndexFunc(p.worlds, func(w job.World) bool { return w.Generation == c.held.Generation })
		if i < 0 || !slices.Contains(p.worlds[i].Peers, job.Peer{ID: c.member, Address: c.address}) {
			continue
		}
		s := state{c.held.Step, c.held.Generation, string(c.held.Sha256)}
		if voted[vote{s, c.member}] {
			continue
		}
		voted[vote{s, c.member}] = true
		if votes[s]++; 2*votes[s] > p.worlds[i].Size() {
			if _, known := p.agreed[s.step]; !known {
				p.agreed[s.step] = s.hash
			}
		}
	}
}

// alone says what the claims of one step, which no majority proves, come to: the hash, if all that hold it and are there agree, and nobody else is
// waited for. A world that still stands has to be heard as a whole, and a step has to be one that the present world has committed.
func (p *proofs) alone(claims []claim, heard int, committed int64, now time.Time) (hash string, ok bool) {
	w, _ := p.present()
	hash = string(claims[0].held.Sha256)
	members := map[string]bool{}
	standing := false
	for _, c := range claims {
		if string(c.held.Sha256) != hash {
			return "", false
		}
		if slices.Contains(w.Peers, job.Peer{ID: c.member, Address: c.address}) {
			members[c.member] = true
		}
		standing = standing || c.held.Generation == w.Generation
	}
	return hash, len(members) > 0 && claims[0].held.Step <= committed && !p.waiting(now) && (!standing || len(members) == heard)
}

// waiting says whether a member of the present world may still be heard.
func (p *proofs) waiting(now time.Time) bool {
	for _, since := range p.silent {
		if now.Sub(since) < hearing {
			return true
		}
	}
	return false
}

// quorum says whether n members of the present world decide, of those that are heard: a strict majority of it, or all if the others have not been
// heard for long.
func (p *proofs) quorum(n, heard int, now time.Time) bool {
	w, ok := p.present()
	return ok && n > 0 && (2*n > w.Size() || n == heard && !p.waiting(now))
}

// committed is the newest step that so many members of the present world have reached that they decide; -1: none.
func (p *proofs) committed(steps []int64, now time.Time) int64 {
	slices.Sort(steps)
	for i := len(steps) - 1; i >= 0; i-- { // len(steps)-i have reached it
		if p.quorum(len(steps)-i, len(steps), now) {
			return steps[i]
		}
	}
	return -1
}
