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

// No single member is believed: a strict majority of a world decides. In a world of two, one that has not reported for
// `reportWait` does not count. All this is a function of the reports; nothing waits.

// proofs keeps the hash of each due state that a strict majority of the world that agreed on it has reported.
type proofs struct {
	worlds  []*usedWorld         // of this term, oldest first
	agreed  map[int64]agreement  // by step
	offered map[int64]time.Time  // since when a state without a proof is on offer
	silent  map[string]time.Time // by member of the present world that does not report: since when
}

// agreement is the hash of a state that counts as proved.
type agreement struct {
	hash     string // SHA-256
	majority bool   // of the world that agreed on it; otherwise of those that are left of it, until a majority reports
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
	return &proofs{agreed: map[int64]agreement{}, offered: map[int64]time.Time{}, silent: map[string]time.Time{}}
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
	maps.DeleteFunc(p.agreed, func(s int64, _ agreement) bool { return before(s) })
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
			if !p.agreed[s.step].majority {
				p.agreed[s.step] = agreement{s.hash, true}
			}
		}
	}
}

// alone returns the hash of a step that no majority proves, if all claims that count agree on it, and those that are
// left of a world that agreed on it have spoken. The present world must have committed the step, unless all of it is
// gone. reports says which processes report.
func (p *proofs) alone(claims []claim, reports func(job.Peer) bool, committed int64, gone bool, now time.Time) (
	hash string, ok bool) {
	if len(p.worlds) == 0 || p.waiting(now) || !gone && claims[0].held.Step > committed {
		return "", false
	}
	present := p.worlds[len(p.worlds)-1]
	holders := map[int64]map[job.Peer]bool{} // by generation
	for _, c := range claims {
		of, peer := c.held.Generation, job.Peer{ID: c.member, Address: c.address}
		w := p.of(of)
		if w.Size() == 0 {
			w = present
		}
		if !w.peers[peer] || c.held.Step > p.last(of) {
			continue
		}
		if hash != "" && string(c.held.Sha256) != hash {
			return "", false
		}
		hash = string(c.held.Sha256)
		if holders[of] == nil {
			holders[of] = map[job.Peer]bool{}
		}
		holders[of][peer] = true
	}
	for of, holders := range holders {
		ok = ok || p.spoken(of, holders, reports, gone)
	}
	return hash, ok
}

// spoken reports whether all that are left of the world of a generation hold its state: the others are in no world any
// more. Of a world that ended before this term there is no record: at least half of the present world must hold it.
func (p *proofs) spoken(generation int64, holders map[job.Peer]bool, reports func(job.Peer) bool, gone bool) bool {
	present := p.worlds[len(p.worlds)-1]
	w := p.of(generation)
	if w.Size() == 0 {
		return generation > 0 && generation < present.Generation && 2*len(holders) >= present.Size()
	}
	for _, peer := range w.Peers {
		left := reports(peer) || present.peers[peer] && !gone && present.Size() > 2
		if left && !holders[peer] {
			return false
		}
	}
	return true
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

// quorum reports whether n of the reporting members of a world decide: a strict majority of the world, or one of the
// present two if the other has not reported for long. A larger world whose majority is silent decides nothing: the
// policy replaces it if it is gone.
func (p *proofs) quorum(w *usedWorld, n, reporting int, now time.Time) bool {
	present, _ := p.present()
	return n > 0 && (2*n > w.Size() ||
		w.Size() == 2 && w.Generation == present.Generation && n == reporting && !p.waiting(now))
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
