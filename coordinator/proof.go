package coordinator

import (
	"maps"
	"math"
	"slices"
	"time"

	"evenweave/internal/job"
	"evenweave/proto"
)

const (
	maxWorlds    = 64   // kept of a term: members that agreed on a state may not be in the present world
	maxFollowers = 4096 // members that are followed
)

// No single member is believed: a strict majority of a world decides. If all others agree, members of the present world
// without a report for `reportWait` do not count. All this is a function of the reports; nothing waits.

// proofs keeps the hash of each due state that a strict majority of the world that agreed on it has reported.
type proofs struct {
	worlds  []*usedWorld         // of this term, oldest first
	agreed  map[int64]string     // SHA-256 by step
	offered map[int64]time.Time  // since when a state without a proof is on offer
	silent  map[string]time.Time // by member of the present world that does not report: since when
}

// usedWorld is a world and the processes that it uses: every status asks for some of every member.
type usedWorld struct {
	job.World
	peers  map[job.Peer]bool
	agreed bool  // on one state, one of its members has said: no step that only an earlier world has reached counts
	begun  int64 // the step that most of it had reached when most had said so; -1: they have not
}

// agrees takes how many members say that this world has agreed on one state, and the step that they have reached.
func (w *usedWorld) agrees(n int, step int64) {
	w.agreed = w.agreed || n > 0
	if w.begun < 0 && 2*n > w.Size() {
		w.begun = step
	}
}

func newProofs() *proofs {
	return &proofs{agreed: map[int64]string{}, offered: map[int64]time.Time{}, silent: map[string]time.Time{}}
}

// present is the newest world.
func (p *proofs) present() (w job.World, ok bool) {
	if len(p.worlds) == 0 {
		return job.World{}, false
	}
	return p.worlds[len(p.worlds)-1].World, true
}

// of returns the world of a generation, or one that uses no process.
func (p *proofs) of(generation int64) *usedWorld {
	for _, w := range slices.Backward(p.worlds) {
		if w.Generation == generation {
			return w
		}
	}
	return &usedWorld{}
}

// last is the last step that a generation can have agreed on: a later one went on from there. So the word of a world
// counts for what it has computed, and not for what its members say when the job has gone on without them.
func (p *proofs) last(generation int64) int64 {
	for _, w := range p.worlds {
		if w.Generation > generation && w.begun >= 0 {
			return w.begun
		}
	}
	return math.MaxInt64
}

// enter takes a newer world.
func (p *proofs) enter(w job.World, now time.Time) {
	if last, ok := p.present(); ok && last.Generation >= w.Generation {
		return
	}
	peers := make(map[job.Peer]bool, w.Size())
	for _, peer := range w.Peers {
		peers[peer] = true
	}
	p.worlds = append(p.worlds, &usedWorld{World: w, peers: peers, begun: -1})
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
	return p.of(generation).peers[job.Peer{ID: member, Address: address}]
}

// unknown says whether that generation's world has left no record: this term began with one in its place.
func (p *proofs) unknown(generation int64) bool {
	return len(p.worlds) > 0 && p.worlds[0].Size() == 0 && generation < p.worlds[0].Generation
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

// count records each hash that a strict majority of the world that agreed on it claims. A member may claim the same
// state several times: it has one vote.
func (p *proofs) count(claims []claim) {
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
		w := p.of(c.held.Generation)
		if !w.peers[job.Peer{ID: c.member, Address: c.address}] || c.held.Step > p.last(c.held.Generation) {
			continue
		}
		s := state{c.held.Step, c.held.Generation, string(c.held.Sha256)}
		if voted[vote{s, c.member}] {
			continue
		}
		voted[vote{s, c.member}] = true
		if votes[s]++; 2*votes[s] > w.Size() {
			if _, known := p.agreed[s.step]; !known {
				p.agreed[s.step] = s.hash
			}
		}
	}
}

// alone returns the hash of a step that no majority proves, if all members that hold the step agree and no other may
// still report. If the world that agreed on it is the present one, all its members must report; and the present world
// must have committed the step. If all of that is gone, a member of the world that agreed on the step must hold it.
func (p *proofs) alone(claims []claim, reporting int, committed int64, gone bool, now time.Time) (hash string,
	ok bool) {
	w, _ := p.present()
	hash = string(claims[0].held.Sha256)
	members := map[string]bool{}
	standing := false
	for _, c := range claims {
		if string(c.held.Sha256) != hash {
			return "", false
		}
		if p.used(w.Generation, c.member, c.address) || gone && p.used(c.held.Generation, c.member, c.address) {
			members[c.member] = true
		}
		standing = standing || c.held.Generation == w.Generation
	}
	return hash, len(members) > 0 && !p.waiting(now) &&
		(gone || claims[0].held.Step <= committed && (!standing || len(members) == reporting))
}

// waiting reports whether a member of the present world may still report.
func (p *proofs) waiting(now time.Time) bool {
	for _, since := range p.silent {
		if now.Sub(since) < reportWait {
			return true
		}
	}
	return false
}

// quorum reports whether n of the reporting members of a world decide: a strict majority of the world, or all of them
// in the present one if its others have not reported for long.
func (p *proofs) quorum(w *usedWorld, n, reporting int, now time.Time) bool {
	present, _ := p.present()
	return n > 0 && (2*n > w.Size() || w.Generation == present.Generation && n == reporting && !p.waiting(now))
}

// committed is the newest step that so many members of a world have reached that they decide; -1: none.
func (p *proofs) committed(w *usedWorld, steps []int64, now time.Time) int64 {
	slices.Sort(steps)
	for i := len(steps) - 1; i >= 0; i-- { // len(steps)-i have reached it
		if p.quorum(w, len(steps)-i, len(steps), now) {
			return steps[i]
		}
	}
	return -1
}
