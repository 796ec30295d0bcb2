package simulation

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

const grace = 30 * time.Second // the most that leaving may take

// next is the state after one more step: exactness promises it, whichever member computes it.
func next(fingerprint uint64) uint64 { return fingerprint*6364136223846793005 + 1442695040888963407 }

// canonical is the one right state of a step.
func canonical(step int64) uint64 {
	fingerprint := uint64(1)
	for range step {
		fingerprint = next(fingerprint)
	}
	return fingerprint
}

// member is a worker process: the loop of worker/loop.go and worker/generation.go as events.
type member struct {
	*process
	id, address string

	known       bool
	step        int64
	fingerprint uint64
	before      uint64 // of the state that this one was computed from; 0: it was not
	snapshots   map[int64]snapshot
	durable     int64 // the newest durable step that it knows
	seen        int   // steps seen: enough of them shorten the deadlines

	view       *view
	world      *job.World // the newest known: from the view or from a peer
	generation int64      // the newest that it has been through or is in
	opened     int64      // the newest in which it committed or held
	session    *session
	parked     map[int64]*session // streams of left neighbours, by generation
	leaving    bool               // asked to
	faulty     bool               // it cannot compute
	lies       int                // lies that are left
	lied       bool               // in its last report
	unproved   bool               // its state comes from one member, while it was a spare
	catching   *catchUp
	tries      int // to catch up, in generation triedIn
	turns      int // all of them, each with another member
	triedIn    int64
	pausing    bool       // until the next try
	received   bool       // a state, or it was in a world, since then
	unused     bool       // it has caught up, and no world has used it
	readers    []*catchUp // of others, with this one
	status     policy.Report
	version    int64
	paced      bool // a report of commits is due
}

type snapshot struct {
	fingerprint uint64
	verified    bool
	generation  int64 // of the world that agreed on it
}

// spawn starts a new worker: it loads for a while, then registers.
func (s *sim) spawn(id, address string) *member {
	m := &member{process: &process{sim: s, name: id}, id: id, address: address, snapshots: map[int64]snapshot{},
		parked: map[int64]*session{}}
	m.see = m.observe
	m.status = policy.Report{Member: id, Step: -1}
	s.members, s.listens[address] = append(s.members, m), m
	m.in(s.between(100*time.Millisecond, 2*time.Second), func() {
		s.log("%s: ready at %s", id, address)
		m.register()
		m.every(ttl/4, m.register)
		m.every(time.Second, func() { m.report(); m.sign(); m.loop() })
		m.every(pollInterval, func() { s.etcd.watch(m.process) })
		s.etcd.watch(m.process)
	})
	return m
}

func (s *sim) spawnNew() *member {
	s.addressN++
	return s.spawn(fmt.Sprintf("m%d", s.addressN), fmt.Sprintf("host:%d", s.addressN))
}

// listener is the process at an address: the newest one.
func (s *sim) listener(address string) *member { return s.listens[address] }

// register puts the record into etcd, or keeps it there.
func (m *member) register() {
	e := m.sim.etcd
	record := job.Member{ID: m.id, Address: m.address, Numerics: "n", Leaving: m.leaving, Protocol: job.Protocol}
	e.request(m.process, func() bool {
		if m.dead {
			return false
		}
		i := slices.IndexFunc(e.members, func(l *lease) bool { return l.member.ID == m.id })
		if i < 0 {
			e.members = append(e.members, &lease{owner: m.process, created: e.revision + 1, member: record})
			i = len(e.members) - 1
			e.changed()
		}
		l := e.members[i]
		if !reflect.DeepEqual(l.member, record) {
			l.member, l.owner = record, m.process
			e.changed()
		}
		l.expires = m.sim.now + ttl
		return true
	}, func(answer) {})
}

// observe takes a view of etcd.
func (m *member) observe(v *view) {
	if m.view != nil && v.revision < m.view.revision {
		return
	}
	m.view = v
	if v.world != nil {
		m.learn(v.world)
	}
	m.loop()
}

// learn takes a world, from etcd or from a peer.
func (m *member) learn(w *job.World) {
	if m.view != nil && (m.world == nil || w.Generation > m.world.Generation) {
		m.world = w
	}
}

// loop acts on what the member knows.
func (m *member) loop() {
	if m.dead {
		return
	}
	m.prepare()
	w := m.world
	switch {
	case m.dead || m.view == nil:
	case m.session != nil:
		if w != nil && w.Generation > m.session.world.Generation && w.Since > m.session.world.Generation {
			m.session.cancel()
			m.loop()
		}
	case m.view.done != nil:
		m.exit("the job is done")
	case m.leaving && (w == nil || w.Rank(m.id) < 0) && m.released():
		m.exit("left")
	case w != nil && w.Generation > m.generation && w.Rank(m.id) >= 0 && !m.awaits(w):
		m.generation = w.Generation
		if c := m.catching; c != nil { // the other member has said its median step
			m.seen = max(m.seen, c.seen)
		}
		m.status = policy.Report{Member: m.id, Generation: w.Generation, Step: m.stateStep()}
		m.sim.enter(m, w)
		m.report()
	}
}

// released reports whether etcd holds the request to leave, or there is no state to wait with.
func (m *member) released() bool {
	return !m.counts() || m.sim.bug == blindLeaver || slices.ContainsFunc(m.view.members, func(r job.Member) bool {
		return r.ID == m.id && r.Leaving
	})
}

func (m *member) stateStep() int64 {
	if !m.known {
		return -1
	}
	return m.step
}

// leave is SIGTERM: finish the step, wait for a world without this member.
func (m *member) leave() {
	if m.leaving {
		return
	}
	m.sim.log("%s: asked to leave at step %d", m.id, m.stateStep())
	m.leaving = true
	m.register()
	m.in(grace, func() { m.sim.kill(m, false) })
	if m.sim.bug == hastyLeaver {
		m.exit("left in haste")
		return
	}
	m.loop()
}

// letGo reports whether a world was published without this leaving member, while others had its state.
func (m *member) letGo() bool {
	w := m.sim.etcd.world
	return m.leaving && w != nil && w.Rank(m.id) < 0
}

// exit ends the process in good order: no committed step may be lost with it.
func (m *member) exit(why string) {
	s := m.sim
	s.log("%s: exits at step %d: %s", m.id, m.stateStep(), why)
	m.dead, m.died = true, s.now
	best := s.newestDurable()
	for _, other := range s.members {
		// it left while others had the state
		if !other.dead || s.etcd.world != nil && other.died > s.etcd.published && s.etcd.world.Rank(m.id) < 0 {
			best = max(best, other.stateStep())
		}
	}
	// One step may be lost: a neighbour that lost the last bytes of the collective repeats it.
	if m.counts() && m.step > best+1 && !s.deceived {
		s.broken("%s took step %d with it when it left: the rest has step %d", m.id, m.step, best)
	}
	s.repent()
	s.hangUp(m)
	s.after(s.delay(), func() {
		if e := s.etcd; e.reaches(m.process) {
			if n := len(e.members); n > 0 {
				e.members = slices.DeleteFunc(e.members, func(l *lease) bool { return l.owner == m.process })
				if len(e.members) != n {
					e.changed()
				}
			}
		}
	})
}

// hangUp lets the coordinators notice that a member's streams ended.
func (s *sim) hangUp(m *member) {
	m.hangUpOn()
	for _, l := range s.leaders {
		s.send(m.process, l.process, func() { l.unfollow(m) })
	}
}

// report sends the status to the leader.
func (m *member) report() {
	m.version++
	m.paced = false
	busy := m.sim.large && m.view == nil || m.catching != nil && !m.catching.ready || m.pausing
	m.status.Step, m.status.CatchingUp = m.stateStep(), m.session == nil && busy
	m.status.Resting = m.session == nil && !busy
	sent := report{Report: m.status, version: m.version, due: m.due(),
		held: held{m.step, m.status.Generation, m.fingerprint}}
	if m.lied = false; m.lie() {
		sent = m.forge(sent)
	}
	for _, l := range m.sim.leaders {
		if l.term != 0 && !l.dead {
			m.sim.send(m.process, l.process, func() { l.listen(m, sent) })
		}
	}
}

// reportCommit reports what only commits have changed, a pace later at most.
func (m *member) reportCommit() {
	if m.paced {
		return
	}
	m.paced = true
	m.in(*pace, func() {
		if m.paced {
			m.report()
		}
	})
}

// due lists the verified snapshots that are not acknowledged yet.
func (m *member) due() []held {
	var all []held
	for step, shot := range m.snapshots {
		if shot.verified {
			all = append(all, held{step, shot.generation, shot.fingerprint})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Compare(a.step, b.step) })
	return all
}

func (m *member) acknowledge(step int64) {
	m.durable = max(m.durable, step)
	for held := range m.snapshots {
		if held <= step {
			delete(m.snapshots, held)
		}
	}
}

// at serves the state of a step.
func (m *member) at(step int64) (fingerprint uint64, ok bool) {
	if m.lie() {
		return m.sim.Uint64(), true
	}
	if shot, held := m.snapshots[step]; held && shot.verified {
		return shot.fingerprint, true
	}
	return m.fingerprint, m.known && m.step == step
}

// adopt installs a fetched state. A member goes back only by a step that the majority does not have, or when it returns
// to a world that went on without it, or may have.
func (m *member) adopt(x *session, step int64, fingerprint uint64) {
	doubted := slices.Contains(x.world.Fresh, m.id) || slices.ContainsFunc(x.world.Doubted, func(p job.Peer) bool {
		return p.ID == m.id
	})
	if m.counts() && step < m.step-1 && (m.current() || !doubted) && !m.sim.deceived {
		m.sim.broken("%s went back from step %d to %d", m.id, m.step, step)
	}
	m.known, m.unproved, m.step, m.fingerprint, m.before = true, false, step, fingerprint, 0
	m.hangUpOn()
}

// commit applies a step.
func (m *member) commit(fingerprint uint64) {
	s := m.sim
	m.step, m.fingerprint, m.before = m.step+1, fingerprint, m.fingerprint
	m.seen++
	s.furthest = max(s.furthest, m.step)
	if fingerprint != canonical(m.step) {
		s.broken("%s committed another state of step %d", m.id, m.step)
	}
	if m.step%s.every == 0 || m.step == s.total {
		m.snapshots[m.step] = snapshot{fingerprint: fingerprint}
	}
	m.status.Committed = true
}

// agree records that the generation has opened, even if no report of it arrives.
func (m *member) agree(w *job.World) {
	m.status.Agreed = true
	if uses(w, m) { // otherwise the record means another process
		m.opened, m.sim.opened = w.Generation, max(m.sim.opened, w.Generation)
	}
}

// current reports whether the member was in the newest generation that opened: its state is not old.
func (m *member) current() bool { return m.opened > 0 && m.opened == m.sim.opened }

func (m *member) verify() {
	if shot, ok := m.snapshots[m.step]; ok {
		shot.verified, shot.generation = true, m.generation
		m.snapshots[m.step] = shot
	}
}

// medianStep of the simulated steps: they take 5 to 60 ms.
const medianStep = 30 * time.Millisecond

// largeState is the size of a state that spares fetch before a world uses them.
const largeState = 512 << 20

// deadlines are the product's own.
func (m *member) deadlines(w *job.World) policy.Deadlines {
	size := int64(0)
	if m.sim.large {
		size = largeState
	}
	d := policy.NewDeadlines(medianStep, m.seen, w.Backoff, size)
	if m.sim.bug == openNotDoubled {
		d.Open = policy.NewDeadlines(medianStep, m.seen, 0, size).Open
	}
	return d
}

// fetch gets the chosen state, then goes on with next.
func (m *member) fetch(x *session, c policy.Choice, next func()) {
	s, over := m.sim, false
	finish := func(err *policy.Accusation, fingerprint uint64) {
		if over || x.over {
			return
		}
		over = true
		if err != nil {
			x.fail(*err)
			return
		}
		m.adopt(x, c.Step, fingerprint)
		next()
	}
	if len(c.Holders) == 0 {
		m.in(m.deadlines(x.world).Fetch,
			func() { finish(&policy.Accusation{Kind: policy.KindFetch, Detail: "no checkpoint"}, 0) })
		r := &restoring{m: m, x: x, step: c.Step, over: &over, began: s.now,
			got: func(fingerprint uint64) { finish(nil, fingerprint) }}
		r.ask()
		return
	}
	peer := x.world.Peers[c.Source(x.rank, x.world.Generation)]
	blame := &policy.Accusation{Suspect: peer.ID, Kind: policy.KindFetch, Phase: "fetch"}
	holder := s.listener(peer.Address)
	m.in(m.deadlines(x.world).Fetch, func() { finish(blame, 0) })
	var fingerprint uint64
	var ok bool
	wanted := func() bool { return !over && !x.over }
	s.transfer(m.process, holder.process, wanted, func() { fingerprint, ok = holder.at(c.Step) }, func() {
		switch {
		case !ok:
			finish(blame, 0)
		case fingerprint != uint64(c.Fingerprint.Hi) && s.bug != wrongBlocks: // not the announced state
			blame.Kind = policy.KindProtocol
			finish(blame, 0)
		default:
			finish(nil, fingerprint)
		}
	}, func() { finish(blame, 0) })
}
