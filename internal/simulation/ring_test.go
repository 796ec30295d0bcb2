package simulation

import (
	"slices"
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

// ring is the collective of one generation: every rank contributes to each round, and any rank may or may not get its
// sum.
type ring struct {
	world    *job.World
	sessions []*session // by rank; nil until it has entered
	rounds   []*round
}

type round struct {
	claims  []*claim // by rank; nil until it has contributed
	given   int      // of them
	summed  bool
	checked bool // an opening: what it chose is right
}

// claim is what a rank contributes: (step, fingerprint) when opening, the step's gradient (of that state) and flags
// otherwise.
type claim struct {
	opening     bool
	known       bool
	unproved    bool // by the word of one member
	step        int64
	fingerprint uint64
	before      uint64 // of the state that it was computed from
	durable     int64  // the newest durable step that it reports
	knows       int64  // the newest durable step that it knows
	changing    bool
}

// session is a member's part in a ring.
type session struct {
	m        *member
	ring     *ring
	world    *job.World
	rank     int
	admitted bool // the right neighbour took its stream
	accepted bool // the left neighbour's stream is there
	running  bool
	claimed  bool // the first exchange is over
	agreed   bool // all ranks had one state once
	final    bool // nothing is left to compute: agree once more, then hold
	round    int
	waits    int  // counts waits, so that the deadline of an old one is void
	asked    bool // for probes, because it waits long
	waiting  bool // in a collective; otherwise it notices a broken ring when it enters the next
	doomed   *policy.Accusation
	over     bool // by failure, cancelling or in good order
	closed   bool // in good order
}

// enter begins a member's part in a generation.
func (s *sim) enter(m *member, w *job.World) {
	r := s.rings[w.Generation]
	if r == nil {
		r = &ring{world: w, sessions: make([]*session, w.Size())}
		s.rings[w.Generation] = r
	}
	if r.world != w {
		s.broken("%s enters another world of generation %d than the others", m.id, w.Generation)
	}
	x := &session{m: m, ring: r, world: w, rank: w.Rank(m.id)}
	m.stopCatchUp()
	m.unused, m.received = false, true
	m.session = x
	if before := r.sessions[x.rank]; before == nil || !before.accepted && len(r.rounds) == 0 {
		r.sessions[x.rank] = x // otherwise a process that restarted under its id: the others hold the old one's streams
	}
	s.log("%s: enters g=%d at step %d", m.id, w.Generation, m.stateStep())
	m.in(m.deadlines(w).Connect, func() {
		if !x.running {
			suspect := x.right()
			if !x.accepted {
				suspect = x.left()
			}
			x.fail(policy.Accusation{Suspect: suspect.ID, Kind: policy.KindUnreachable, Phase: "connect"})
		}
	})
	if w.Size() == 1 {
		x.admitted, x.accepted = true, true
	} else {
		x.dial()
	}
	x.connected()
}

func (x *session) right() job.Peer { return x.world.Peers[(x.rank+1)%x.world.Size()] }
func (x *session) left() job.Peer {
	return x.world.Peers[(x.rank+x.world.Size()-1)%x.world.Size()]
}

// dial tries to open the stream to the right neighbour until the deadline.
func (x *session) dial() {
	if x.over || x.admitted {
		return
	}
	s, g, right := x.m.sim, x.world.Generation, x.right()
	target := s.listener(right.Address)
	stale := false
	s.call(x.m.process, target.process, func() {
		if stale = target.generation > g || target.id != right.ID; stale || x.over {
			return
		}
		target.parked[g] = x
		target.learn(x.world)
		if target.session != nil {
			target.session.connected()
		}
		target.loop()
	}, func() {
		if stale {
			x.fail(policy.Accusation{Suspect: right.ID, Kind: policy.KindProtocol, Phase: "connect"})
			return
		}
		x.admitted = true
		x.connected()
	}, func() {
		x.m.in(200*time.Millisecond, func() {
			if s.listener(right.Address) == target {
				x.fail(policy.Accusation{Suspect: right.ID, Kind: policy.KindUnreachable, Phase: "connect"})
			}
		})
	})
	x.m.in(500*time.Millisecond, x.dial)
}

// connected starts the generation when both streams are open.
func (x *session) connected() {
	if x.over || x.running {
		return
	}
	if p := x.m.parked[x.world.Generation]; !x.accepted && p != nil && !p.over && !p.m.dead && p.m.id == x.left().ID {
		x.accepted = true
	}
	if x.admitted && x.accepted {
		x.running = true
		x.open()
	}
}

// end leaves the ring.
func (x *session) end() {
	x.over = true
	x.m.session = nil
}

// fail reports why this part is over, and breaks the ring for the neighbours.
func (x *session) fail(a policy.Accusation) {
	if x.over {
		return
	}
	m := x.m
	a.Step, a.Paused = m.step, m.stalled()
	m.sim.log("%s: g=%d is over at step %d: %s %s (paused %v)", m.id, x.world.Generation, m.stateStep(), a.Kind,
		a.Suspect, a.Paused)
	if m.sim.bug == eagerCommit && x.waits > 0 && !x.final && m.known && len(x.ring.rounds) > 1 {
		m.commit(m.fingerprint ^ uint64(len(x.ring.rounds))) // of a part of the gradient
	}
	x.end()
	m.status.Accusation = &a
	m.report()
	x.abort(policy.Accusation{Suspect: m.id, Kind: "relayed"})
	m.loop()
}

// cancel ends this part because a newer world does not wait for its step.
func (x *session) cancel() {
	x.m.sim.log("%s: g=%d is cancelled at step %d", x.m.id, x.world.Generation, x.m.stateStep())
	x.end()
	x.abort(policy.Accusation{Suspect: x.m.id, Kind: "relayed"})
}

// abort reports to both neighbours that this part is over.
func (x *session) abort(a policy.Accusation) {
	n := x.world.Size()
	for _, rank := range []int{(x.rank + 1) % n, (x.rank + n - 1) % n} {
		y := x.ring.sessions[rank]
		if y == nil || y == x || x.ring.sessions[x.rank] != x {
			continue
		}
		x.m.sim.send(x.m.process, y.m.process, func() {
			if rank == (x.rank+1)%n && y.accepted || rank != (x.rank+1)%n && y.admitted {
				if y.doomed = &a; y.waiting {
					y.fail(a)
				}
			}
		})
	}
}

// contribute gives this rank's part to the next round and waits for the sum.
func (x *session) contribute(c claim, deadline time.Duration) {
	if x.doomed != nil {
		x.fail(*x.doomed)
		return
	}
	r := x.ring
	x.waiting = true
	for len(r.rounds) <= x.round {
		r.rounds = append(r.rounds, &round{claims: make([]*claim, x.world.Size())})
	}
	this := r.rounds[x.round]
	x.round++
	if this.claims[x.rank] == nil {
		this.given++
	}
	this.claims[x.rank] = &c
	x.waits++
	wait := x.waits
	x.m.in(x.m.deadlines(x.world).Suspect, func() {
		if x.waits == wait && !x.over {
			x.asked = true
			x.m.status.Accusation = &policy.Accusation{Kind: policy.KindWaiting}
			x.m.report()
		}
	})
	x.m.in(deadline, func() {
		if x.waits == wait {
			x.fail(policy.Accusation{Suspect: x.left().ID, Kind: policy.KindDeadline, Phase: "receive"})
		}
	})
	x.m.sim.sum(r, this)
}

// sum passes a round's result on as soon as all have contributed and all links carry.
func (s *sim) sum(r *ring, this *round) {
	if this.summed || this.given < len(this.claims) {
		return
	}
	if !s.whole(r) {
		s.after(200*time.Millisecond, func() { s.sum(r, this) })
		return
	}
	this.summed = true
	for _, x := range r.sessions {
		wait := x.waits
		s.after(s.delay(), func() {
			if !s.whole(r) && s.chance(0.5) { // a member died meanwhile: this rank's last bytes are lost
				return
			}
			x.m.exec(func() {
				if !x.over && x.waits == wait {
					x.waits++
					x.waiting = false
					if x.asked {
						x.asked, x.m.status.Accusation = false, nil
						x.m.report()
					}
					x.take(this)
				}
			})
		})
	}
}

// whole reports whether every rank is there and every link carries.
func (s *sim) whole(r *ring) bool {
	for i, x := range r.sessions {
		y := r.sessions[(i+1)%len(r.sessions)]
		if x == nil || y == nil || x.over && !x.closed || x.m.dead && !x.closed ||
			len(s.blocked) > 0 && s.blocked[[2]*process{x.m.process, y.m.process}] {
			return false
		}
	}
	return true
}

// take goes on with a round's result.
func (x *session) take(this *round) {
	first := this.claims[0]
	for _, c := range this.claims {
		if c.opening != first.opening || !c.opening && c.step != first.step {
			x.fail(policy.Accusation{Suspect: x.left().ID, Kind: policy.KindProtocol, Phase: "receive"})
			return
		}
	}
	if first.opening {
		x.opened(this)
		return
	}
	x.stepped(this)
}

func (x *session) open() {
	m := x.m
	c := claim{opening: true, known: m.counts(), step: m.step, fingerprint: m.fingerprint, before: m.before,
		durable: m.durable,
		knows:   m.durable}
	if !x.claimed && m.known && m.unproved {
		c.known, c.unproved = true, true
	}
	if x.liesInOpening() {
		c = m.forgeClaim(c)
	}
	x.contribute(c, m.deadlines(x.world).Open)
}

// opened chooses the state to go on from.
func (x *session) opened(this *round) {
	m, s := x.m, x.m.sim
	slots, newest := make([]int64, policy.SlotWords*len(this.claims)), x.world.DurableStep
	for rank, c := range this.claims {
		if c.known {
			slots[policy.SlotWords*rank], slots[policy.SlotWords*rank+1] = c.step+1, int64(c.fingerprint)
			slots[policy.SlotWords*rank+5] = int64(c.before)
		}
		slots[policy.SlotWords*rank+3] = c.durable
		if c.unproved {
			slots[policy.SlotWords*rank+4] = policy.Unproved
		}
		if x.ring.sessions[rank].m.current() { // the world may go on without another member's state
			newest = max(newest, c.knows)
		}
	}
	exchange := policy.Exchange{Slots: slots, DurableStep: x.world.DurableStep, Total: s.total}
	if !x.agreed {
		exchange.Fresh = s.indexOf(x.world).freshRanks
	}
	c := policy.Choose(exchange)
	if s.bug == checkpointWins && c.Step > x.world.DurableStep && !c.Agreed {
		c = policy.Choice{Step: x.world.DurableStep}
	}
	// Without an unproved state the second exchange would show what the first one shows: no memory changes here.
	again := !x.claimed && slices.ContainsFunc(this.claims, func(c *claim) bool { return c.unproved })
	x.claimed = true
	switch {
	case c.Agreed:
		x.agreed = true
		if m.unproved {
			m.unproved = false
			s.caughtUp++
		}
		if !this.checked { // the other ranks take the same, perhaps only after a newer world has gone on from it
			this.checked = true
			x.check(c, newest)
		}
		m.verify()
		m.agree(x.world)
		m.report()
		if x.final {
			s.log("%s: holds step %d in g=%d", m.id, m.step, x.world.Generation)
			m.status.Holding = true
			x.close()
			m.report()
			return
		}
		x.step()
	case again, c.Has(x.rank):
		x.open()
	case m.unproved && len(c.Holders) > 0 && m.step == c.Step && m.fingerprint == uint64(c.Fingerprint.Hi):
		m.unproved = false
		s.caughtUp++
		x.open()
	default:
		m.fetch(x, c, x.open)
	}
}

// check says whether a generation may open with this choice; newest is a durable step that it must not go below.
func (x *session) check(c policy.Choice, newest int64) {
	s := x.m.sim
	for _, other := range s.members {
		y := other.session
		inside := y != nil && y.ring == x.ring && x.ring.sessions[y.rank] == y && !s.indexOf(x.world).fresh[other.id]
		reachable := s.chaos.tame && s.poisoned == 0 && !other.faulty && !other.dead && !other.letGo() &&
			other.current()
		// one more: it may have taken the next step already
		if (inside || reachable) && other.stateStep() > c.Step+1 && !s.deceived {
			s.broken("g=%d goes on from step %d although %s has step %d", x.world.Generation, c.Step, other.id,
				other.step)
		}
	}
	if c.Step < newest && !s.deceived {
		s.broken("g=%d opens with step %d, below the durable step %d", x.world.Generation, c.Step, newest)
	}
}

// step computes for a while, then contributes.
func (x *session) step() {
	m := x.m
	if m.step >= m.sim.total || x.world.Halt {
		x.final = true
		x.open()
		return
	}
	m.in(m.sim.between(5*time.Millisecond, 60*time.Millisecond), func() {
		if !x.over && (m.faulty || m.step+1 == m.sim.poisoned) {
			x.fail(policy.Accusation{Kind: policy.KindOther, Detail: "it cannot compute"})
			return
		}
		if !x.over {
			changing := m.world.Generation > x.world.Generation
			x.contribute(claim{known: true, step: m.step, fingerprint: m.fingerprint, changing: changing},
				m.deadlines(x.world).Step)
		}
	})
}

// stepped commits, if all computed from the same state.
func (x *session) stepped(this *round) {
	m, changing := x.m, false
	for _, c := range this.claims {
		if c.fingerprint != this.claims[0].fingerprint {
			x.open()
			return
		}
		changing = changing || c.changing
	}
	m.verify()
	m.commit(next(this.claims[0].fingerprint))
	m.share(changing)
	if !m.sim.crowd {
		m.reportCommit()
	}
	if changing {
		m.sim.log("%s: leaves g=%d after step %d", m.id, x.world.Generation, m.step)
		x.close()
		return
	}
	x.step()
}

// close leaves the ring in good order.
func (x *session) close() {
	x.closed = true
	x.end()
	x.m.loop()
}

// TestALateRankTakesWhatWasRight: the last rank may take what its world has chosen after the others have gone on in a
// newer one. That breaks no promise.
func TestALateRankTakesWhatWasRight(t *testing.T) {
	s := emptySim(1, noBug, nil)
	s.total, s.chaos.tame = 9, true
	members := []*member{s.spawnNew(), s.spawnNew()}
	r, opening := &ring{world: &job.World{Generation: 1}}, &round{}
	for rank, m := range members {
		m.known, m.step, m.fingerprint = true, 5, canonical(5)
		r.world.Peers = append(r.world.Peers, job.Peer{ID: m.id, Address: m.address})
		r.sessions = append(r.sessions, &session{m: m, ring: r, world: r.world, rank: rank, final: true})
		opening.claims = append(opening.claims, &claim{opening: true, known: true, step: 5, fingerprint: m.fingerprint})
	}
	r.sessions[0].opened(opening)
	members[0].step, members[0].fingerprint = 8, canonical(8)
	if r.sessions[1].opened(opening); s.failed != "" {
		t.Error(s.failed)
	}
	again := &round{claims: opening.claims}
	if r.sessions[1].opened(again); s.failed == "" {
		t.Error("a choice that loses three steps breaks no promise")
	}
}
