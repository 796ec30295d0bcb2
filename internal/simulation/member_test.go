package simulation

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

const grace = 30 * time.Second // that leaving may take

// next is the state after one more step: what exactness promises, whoever computes it.
func next(print uint64) uint64 { return print*6364136223846793005 + 1442695040888963407 }

// canonical is the one right state of a step.
func canonical(step int64) uint64 {
	print := uint64(1)
	for range step {
		print = next(print)
	}
	return print
}

// member is a worker process: the loop of worker/loop.go and worker/generation.go as events.
type member struct {
	*process
	id, address string

	known     bool
	step      int64
	print     uint64
	snapshots map[int64]snapshot
	durable   int64 // the newest step that it was told to be
	seen      int   // steps: enough of them shorten the deadlines

	view       *view
	world      *job.World // the newest known: from the view or from a peer
	generation int64      // the newest that it has been through or is in
	opened     int64      // the newest in which it committed or held
	session    *session
	parked     map[int64]*session // streams of left neighbours, by generation
	leaving    bool               // asked to
	faulty     bool               // it cannot compute
	lies       int                // that it still tells
	lied       bool               // in its last report
	status     policy.Told
	version    int64
}

type snapshot struct {
	print      uint64
	verified   bool
	generation int64 // of the world that agreed on it
}

// spawn starts a fresh worker: it loads for a while, then registers.
func (s *sim) spawn(id, address string) *member {
	m := &member{process: &process{sim: s, name: id}, id: id, address: address, snapshots: map[int64]snapshot{}, parked: map[int64]*session{}}
	m.see = m.observe
	m.status = policy.Told{Member: id, Step: -1}
	s.members = append(s.members, m)
	m.in(s.between(100*time.Millisecond, 2*time.Second), func() {
		s.log("%s: ready at %s", id, address)
		m.register()
		m.every(ttl/4, m.register)
		m.every(time.Second, m.tell)
		m.every(pollInterval, func() { s.etcd.watch(m.process) })
		s.etcd.watch(m.process)
	})
	return m
}

func (s *sim) spawnNew() *member {
	s.addressN++
	return s.spawn(fmt.Sprintf("m%d", s.addressN), fmt.Sprintf("host:%d", s.addressN))
}

// listener is the process at an address: the newest that took it.
func (s *sim) listener(address string) *member {
	for _, m := range slices.Backward(s.members) {
		if m.address == address {
			return m
		}
	}
	return nil
}

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
		if l.member != record {
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

// loop decides what to do with what is known.
func (m *member) loop() {
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
	case m.leaving && (w == nil || w.Rank(m.id) < 0):
		m.exit("left")
	case w != nil && w.Generation > m.generation && w.Rank(m.id) >= 0:
		m.generation = w.Generation
		m.status = policy.Told{Member: m.id, Generation: w.Generation, Step: m.told()}
		m.sim.enter(m, w)
		m.tell()
	}
}

func (m *member) told() int64 {
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
	m.sim.log("%s: asked to leave at step %d", m.id, m.told())
	m.leaving = true
	m.register()
	m.in(grace, func() { m.sim.kill(m, false) })
	if m.sim.bug == hastyLeaver {
		m.exit("left in haste")
		return
	}
	m.loop()
}

// letGo says whether a world was published without this leaver, while others had its state.
func (m *member) letGo() bool {
	w := m.sim.etcd.world
	return m.leaving && w != nil && w.Rank(m.id) < 0
}

// exit ends the process by its own will: nothing that was committed may go with it.
func (m *member) exit(why string) {
	s := m.sim
	s.log("%s: exits at step %d: %s", m.id, m.told(), why)
	m.dead, m.died = true, s.now
	best := s.newestDurable()
	for _, other := range s.members {
		if !other.dead || s.etcd.world != nil && other.died > s.etcd.published && s.etcd.world.Rank(m.id) < 0 { // it was let go while others had the state
			best = max(best, other.told())
		}
	}
	// One step may go: a neighbour that lost the last bytes of the collective does that step again.
	if m.told() > best+1 && !s.deceived {
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
	for _, l := range s.leaders {
		s.send(m.process, l.process, func() { l.unfollow(m) })
	}
}

// tell sends the status to who leads.
func (m *member) tell() {
	m.version++
	m.status.Step, m.status.Resting = m.told(), m.session == nil
	told := report{Told: m.status, version: m.version, due: m.due(), held: held{m.step, m.status.Generation, m.print}}
	if m.lied = false; m.lie() {
		told = m.forge(told)
	}
	for _, l := range m.sim.leaders {
		if l.term != 0 && !l.dead {
			m.sim.send(m.process, l.process, func() { l.listen(m, told) })
		}
	}
}

// due lists the verified snapshots that nobody has acknowledged.
func (m *member) due() []held {
	var all []held
	for step, shot := range m.snapshots {
		if shot.verified {
			all = append(all, held{step, shot.generation, shot.print})
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
func (m *member) at(step int64) (print uint64, ok bool) {
	if m.lie() {
		return m.sim.Uint64(), true
	}
	if shot, held := m.snapshots[step]; held && shot.verified {
		return shot.print, true
	}
	return m.print, m.known && m.step == step
}

// adopt takes over a fetched state. A member goes back only to do a step again that the majority does not have, or if it comes back to a world
// that went on without it.
func (m *member) adopt(x *session, step int64, print uint64) {
	if m.known && step < m.step-1 && (m.current() || !slices.Contains(x.world.Fresh, m.id)) && !m.sim.deceived {
		m.sim.broken("%s went back from step %d to %d", m.id, m.step, step)
	}
	m.known, m.step, m.print = true, step, print
}

// commit applies a step.
func (m *member) commit(print uint64) {
	s := m.sim
	m.step, m.print = m.step+1, print
	m.seen++
	s.furthest = max(s.furthest, m.step)
	if print != canonical(m.step) {
		s.broken("%s committed another state of step %d", m.id, m.step)
	}
	if m.step%s.every == 0 || m.step == s.total {
		m.snapshots[m.step] = snapshot{print: print}
	}
	m.status.Committed = true
}

// agree notes that the generation has opened, whatever the coordinator hears of it.
func (m *member) agree(w *job.World) {
	if uses(w, m) { // else it is another process than the record means
		m.opened, m.sim.opened = w.Generation, max(m.sim.opened, w.Generation)
	}
}

// current says whether the member was in the newest generation that opened: its state is not an old one.
func (m *member) current() bool { return m.opened > 0 && m.opened == m.sim.opened }

func (m *member) verify() {
	if shot, ok := m.snapshots[m.step]; ok {
		shot.verified, shot.generation = true, m.generation
		m.snapshots[m.step] = shot
	}
}

// medianStep of the simulated steps: they take 5 to 60 ms.
const medianStep = 30 * time.Millisecond

// deadlines are the product's own.
func (m *member) deadlines(w *job.World) policy.Deadlines {
	d := policy.NewDeadlines(medianStep, m.seen, w.Backoff)
	if m.sim.bug == openNotDoubled {
		d.Open = policy.NewDeadlines(medianStep, m.seen, 0).Open
	}
	return d
}

// fetch gets the chosen state, then goes on with next.
func (m *member) fetch(x *session, c policy.Choice, next func()) {
	s, over := m.sim, false
	finish := func(err *policy.Accusation, print uint64) {
		if over || x.over {
			return
		}
		over = true
		if err != nil {
			x.fail(*err)
			return
		}
		m.adopt(x, c.Step, print)
		next()
	}
	if len(c.Holders) == 0 {
		m.in(m.deadlines(x.world).Fetch, func() { finish(&policy.Accusation{Kind: policy.KindFetch, Detail: "no checkpoint"}, 0) })
		m.restore(x, c.Step, &over, func(print uint64) { finish(nil, print) })
		return
	}
	peer := x.world.Peers[c.Source(x.rank, x.world.Generation)]
	blame := &policy.Accusation{Suspect: peer.ID, Kind: policy.KindFetch, Phase: "fetch"}
	holder := s.listener(peer.Address)
	m.in(m.deadlines(x.world).Fetch, func() { finish(blame, 0) })
	var print uint64
	var ok bool
	wanted := func() bool { return !over && !x.over }
	s.transfer(m.process, holder.process, wanted, func() { print, ok = holder.at(c.Step) }, func() {
		switch {
		case !ok:
			finish(blame, 0)
		case print != uint64(c.Print.Hi): // another state than was announced
			blame.Kind = policy.KindProtocol
			finish(blame, 0)
		default:
			finish(nil, print)
		}
	}, func() { finish(blame, 0) })
}

// restore asks whoever leads for a checkpoint until it comes.
func (m *member) restore(x *session, step int64, over *bool, got func(uint64)) {
	if *over || x.over {
		return
	}
	address := x.world.Coordinator
	if m.view.leader != "" {
		address = m.view.leader
	}
	again := func() { m.in(restorePause, func() { m.restore(x, step, over, got) }) }
	l := m.sim.leaderAt(address)
	var print uint64
	var ok bool
	wanted := func() bool { return !*over && !x.over }
	m.sim.transfer(m.process, l.process, wanted, func() { print, ok = m.sim.disk[step] }, func() {
		if ok {
			got(print)
			return
		}
		again()
	}, again)
}
