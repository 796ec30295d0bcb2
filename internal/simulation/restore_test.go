package simulation

import "time"

// restoring is a member's load of a checkpoint: Fetcher.Fetch of worker/fetch.go as events. The leader says what the
// state is; the blocks come from the member of the rank before, which loads it too, and some from the leader.
type restoring struct {
	m      *member
	x      *session
	step   int64
	over   *bool
	began  time.Duration
	direct bool // the other member has sent wrong blocks, or is gone
	got    func(fingerprint uint64)
}

func (r *restoring) wanted() bool { return !*r.over && !r.x.over }

func (r *restoring) again() { r.m.in(restorePause, r.ask) }

// ask asks the leader what the state is, or for all of it, until it answers.
func (r *restoring) ask() {
	if !r.wanted() {
		return
	}
	address := r.x.world.Coordinator
	if r.m.view.leader != "" {
		address = r.m.view.leader
	}
	s, l, from := r.m.sim, r.m.sim.leaderAt(address), r.source()
	var want uint64
	var ok bool
	serve := func() { want, ok = s.disk[r.step] }
	served := func() {
		switch {
		case !ok:
			r.again()
		case from == nil:
			r.got(want)
		default:
			r.pass(from, want)
		}
	}
	if from == nil {
		s.transfer(r.m.process, l.process, r.wanted, serve, served, r.again)
		return
	}
	s.call(r.m.process, l.process, serve, served, r.again)
}

// source is the member that passes the blocks on; nil: the leader sends them.
func (r *restoring) source() *member {
	n := r.x.world.Size()
	late := r.m.sim.now-r.began > r.m.deadlines(r.x.world).Fetch/reserve
	if !r.m.sim.relayed || r.x.rank == 0 || n >= twoCopies && r.x.rank == n/2 || r.direct || late {
		return nil
	}
	return r.m.sim.listener(r.x.world.Peers[r.x.rank-1].Address)
}

// pass gets the blocks from another member. It passes them on as they arrive there, so this takes no time of its own.
func (r *restoring) pass(from *member, want uint64) {
	s := r.m.sim
	var fingerprint uint64
	var ok bool
	s.call(r.m.process, from.process, func() { fingerprint, ok = from.passOn(r.step) }, func() {
		switch {
		case !ok:
			r.again()
		case fingerprint != want && s.bug != wrongBlocks:
			r.direct = true
			r.ask()
		default:
			r.got(fingerprint)
		}
	}, func() { r.direct = true; r.ask() })
}

// passOn gives the state that the member has loaded, or wrong blocks. No report contradicts these: only their hashes.
func (m *member) passOn(step int64) (fingerprint uint64, ok bool) {
	if ok = m.known && m.step == step; ok && m.lies > 0 && m.sim.chaos.healed == 0 && m.sim.chance(0.5) {
		m.sim.log("%s passes wrong blocks on", m.id)
		m.lies--
		return m.sim.Uint64(), true
	}
	return m.fingerprint, ok
}
