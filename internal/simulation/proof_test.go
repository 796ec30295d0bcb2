package simulation

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
)

// held is a state that a member reports to hold: its step, the world that agreed on it, its hash.
type held struct {
	step, generation int64
	fingerprint      uint64
}

// offered is a member's claim that it holds a state.
type offered struct {
	held
	member *member
}

// proofs are a term's proofs of states from its members' reports, as in coordinator/proof.go: a strict majority of a
// world decides.
type proofs struct {
	worlds []*job.World
	agreed map[int64]uint64
	since  map[int64]time.Duration   // by step on offer
	silent map[string]time.Duration  // by member of the present world that does not report: since when
	forged map[*member]bool          // sent a state with another hash than reported
	avoid  map[*member]time.Duration // failed to give one, when
	began  time.Duration
}

func newProofs(now time.Duration) *proofs {
	return &proofs{agreed: map[int64]uint64{}, since: map[int64]time.Duration{}, silent: map[string]time.Duration{},
		forged: map[*member]bool{},
		avoid:  map[*member]time.Duration{}, began: now}
}

func (p *proofs) present() *job.World {
	if len(p.worlds) == 0 {
		return &job.World{}
	}
	return p.worlds[len(p.worlds)-1]
}

// of is the world of a generation, or one that uses no process.
func (p *proofs) of(generation int64) *job.World {
	for _, w := range p.worlds {
		if w.Generation == generation {
			return w
		}
	}
	return &job.World{}
}

func (p *proofs) enter(w *job.World, now time.Duration) {
	if w == nil || p.present().Generation >= w.Generation {
		return
	}
	p.worlds = append(p.worlds, w)
	p.silent = map[string]time.Duration{}
	for _, peer := range w.Peers {
		p.silent[peer.ID] = now
	}
}

func (p *proofs) saved(step int64) {
	maps.DeleteFunc(p.agreed, func(s int64, _ uint64) bool { return s <= step })
	maps.DeleteFunc(p.since, func(s int64, _ time.Duration) bool { return s <= step })
}

func uses(w *job.World, m *member) bool {
	return w.Size() > 0 && m.sim.indexOf(w).peers[job.Peer{ID: m.id, Address: m.address}]
}

func (p *proofs) waiting(now time.Duration) bool {
	for _, since := range p.silent {
		if now-since < reportWait {
			return true
		}
	}
	return false
}

// quorum reports whether n of the members that report decide.
func (l *leader) quorum(n, peers int) bool {
	size := l.proofs.present().Size()
	if l.sim.bug == oneIsBelieved {
		return n > 0
	}
	return n > 0 && (2*n > size || size == 2 && n == peers && !l.proofs.waiting(l.sim.now))
}

func (l *leader) peers() []report {
	var all []report
	for m, r := range l.reports {
		if uses(l.proofs.present(), m) {
			all = append(all, r)
		}
	}
	return all
}

func (l *leader) agree(says func(report) bool) bool {
	peers, n := l.peers(), 0
	for _, r := range peers {
		if says(r) {
			n++
		}
	}
	return l.quorum(n, len(peers))
}

// committed is the newest step that enough members have reached; -1: none.
func (l *leader) committed() int64 {
	var steps []int64
	for _, r := range l.peers() {
		steps = append(steps, r.Step)
	}
	slices.Sort(steps)
	for i, step := range slices.Backward(steps) {
		if l.quorum(len(steps)-i, len(steps)) {
			return step
		}
	}
	return -1
}

func (l *leader) claims() []offered {
	var all []offered
	w, s := l.proofs.present(), l.sim
	for m, r := range l.reports {
		for _, h := range r.due {
			if h.step > l.durable && h.step <= s.total && (h.step%s.every == 0 || h.step == s.total) {
				all = append(all, offered{h, m})
			}
		}
		if h := r.held; r.Holding && h.step > l.durable && h.step <= s.total && r.Generation == w.Generation &&
			h.generation == w.Generation && (w.Halt || h.step == s.total) {
			all = append(all, offered{h, m})
		}
	}
	slices.SortFunc(all, func(a, b offered) int {
		return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.member.id, b.member.id),
			cmp.Compare(a.member.address, b.member.address))
	})
	return all
}

// prove keeps the hashes that a strict majority of the world that agreed on a state reports.
func (l *leader) prove(claims []offered) {
	votes, voted := map[held]int{}, map[offered]bool{}
	for _, c := range claims {
		if voted[c] && l.sim.bug != votesTwice { // the same state may be both due and held at the end
			continue
		}
		voted[c] = true
		for _, w := range l.proofs.worlds {
			if w.Generation != c.generation || !uses(w, c.member) {
				continue
			}
			if votes[c.held]++; 2*votes[c.held] > w.Size() || l.sim.bug == oneIsBelieved {
				if _, known := l.proofs.agreed[c.step]; !known {
					l.proofs.agreed[c.step] = c.fingerprint
				}
			}
		}
	}
}

// alone returns the hash of claims without a majority, if all that are left of a world that agreed on it claim it.
func (l *leader) alone(claims []offered, committed int64) (fingerprint uint64, ok bool) {
	if claims[0].step > committed || l.proofs.waiting(l.sim.now) {
		return 0, false
	}
	present, holders := l.proofs.present(), map[int64]map[*member]bool{}
	for _, c := range claims {
		w := l.proofs.of(c.generation)
		if w.Size() == 0 {
			w = present
		}
		if !uses(w, c.member) {
			continue
		}
		if fingerprint != 0 && c.fingerprint != fingerprint {
			return 0, false
		}
		if fingerprint = c.fingerprint; holders[c.generation] == nil {
			holders[c.generation] = map[*member]bool{}
		}
		holders[c.generation][c.member] = true
	}
	for generation, holders := range holders {
		ok = ok || l.spoken(l.proofs.of(generation), generation, holders)
	}
	return fingerprint, ok
}

// spoken reports whether all that are left of a world claim its state; of one without a record, half of the present.
func (l *leader) spoken(w *job.World, generation int64, holders map[*member]bool) bool {
	present := l.proofs.present()
	if w.Size() == 0 {
		return generation > 0 && generation < present.Generation && 2*len(holders) >= present.Size()
	}
	reporting := map[job.Peer]*member{}
	for m := range l.reports {
		reporting[job.Peer{ID: m.id, Address: m.address}] = m
	}
	for _, peer := range w.Peers {
		m := reporting[peer]
		left := m != nil || present.Size() > 2 && l.sim.indexOf(present).peers[peer]
		if left && !holders[m] {
			return false
		}
	}
	return true
}

// offer is the oldest proved state that is newer than the durable one and that a member has.
func (l *leader) offer() (c offered, ok bool) {
	claims, now := l.claims(), l.sim.now
	if len(claims) == 0 {
		return offered{}, false
	}
	committed := l.committed()
	l.prove(claims)
	for _, c := range claims {
		if _, known := l.proofs.since[c.step]; c.step <= committed && !known {
			l.proofs.since[c.step] = now
		}
	}
	for len(claims) > 0 {
		n := slices.IndexFunc(claims, func(c offered) bool { return c.step != claims[0].step })
		if n < 0 {
			n = len(claims)
		}
		of := claims[:n]
		claims = claims[n:]
		fingerprint, proved := l.proofs.agreed[of[0].step]
		if !proved {
			if of[0].step > committed {
				continue
			}
			if now-l.proofs.since[of[0].step] < reportWait {
				return offered{}, false
			}
			if fingerprint, proved = l.alone(of, committed); !proved {
				continue
			}
			l.proofs.agreed[of[0].step] = fingerprint
		}
		of = slices.DeleteFunc(slices.Clone(of), func(c offered) bool {
			return c.fingerprint != fingerprint ||
				l.proofs.forged[c.member]
		})
		if len(of) > 0 {
			return slices.MinFunc(of, func(a, b offered) int {
				return cmp.Compare(l.proofs.avoid[a.member],
					l.proofs.avoid[b.member])
			}), true
		}
	}
	return offered{}, false
}
