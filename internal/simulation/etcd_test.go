package simulation

import (
	"slices"
	"time"

	"evenweave/internal/job"
)

// etcd holds the job's records. Processes send it requests and get views.
type etcd struct {
	sim      *sim
	away     bool
	back     time.Duration // when it was last back: leases are renewed then
	revision int64
	view     *view

	numerics     string
	world        *job.World
	worldChanged int64
	published    time.Duration // when the world was
	done         *job.Done
	leader       *lease
	members      []*lease
	unreadable   bool // it also holds a member's record that cannot be decoded: views leave it out
}

// lease is a record that lives while its owner renews it.
type lease struct {
	owner   *process
	created int64
	expires time.Duration
	member  job.Member // for members
	address string     // for leaders
}

// view is everything that etcd holds at one revision. Read-only.
type view struct {
	revision     int64
	numerics     string
	world        *job.World
	worldChanged int64
	done         *job.Done
	leader       string
	members      []job.Member
	peers        map[job.Peer]bool // those of the members; nil until they are asked for
}

// registered reports whether the view has this member.
func (v *view) registered(m *member) bool {
	if v.peers == nil {
		v.peers = map[job.Peer]bool{}
		for _, r := range v.members {
			v.peers[r.Peer()] = true
		}
	}
	return v.peers[job.Peer{ID: m.id, Address: m.address}]
}

// changed makes a new view and sends it to all watching processes.
func (e *etcd) changed() {
	e.revision++
	v := &view{revision: e.revision, numerics: e.numerics, world: e.world, worldChanged: e.worldChanged, done: e.done}
	if e.leader != nil {
		v.leader = e.leader.address
	}
	for _, m := range e.members {
		v.members = append(v.members, m.member)
	}
	e.view = v
	for _, m := range e.sim.members {
		e.watch(m.process)
	}
	for _, l := range e.sim.leaders {
		e.watch(l.process)
	}
}

// watch sends a process the view after a delay.
func (e *etcd) watch(p *process) {
	if p.dead || p.reading {
		return
	}
	p.reading = true
	e.sim.after(e.sim.delay(), func() {
		p.reading = false
		if v := e.view; e.reaches(p) && !(e.unreadable && e.sim.bug == frozenView) {
			e.sim.after(e.sim.between(0, time.Millisecond), func() { p.exec(func() { p.see(v) }) })
		}
	})
}

func (e *etcd) reaches(p *process) bool {
	return !e.away && !e.sim.blocked[[2]*process{p, e.sim.network}] && !e.sim.blocked[[2]*process{e.sim.network, p}]
}

// answer to a request.
type answer int

const (
	applied answer = iota
	refused        // a condition of the transaction did not hold
	unknown        // no answer in time: it may be applied, now or later
)

// request runs a transaction; the answer comes exactly once if the process lives.
func (e *etcd) request(p *process, apply func() bool, answered func(answer)) {
	s, over := e.sim, false
	finish := func(a answer) {
		p.exec(func() {
			if !over {
				over = true
				answered(a)
			}
		})
	}
	s.after(requestTimeout, func() { finish(unknown) })
	way := s.delay()
	if s.chance(0.005) { // delayed so long that its sender may have given up or lost its term
		way = s.between(requestTimeout/2, 3*requestTimeout)
	}
	s.after(way, func() {
		if e.away || s.blocked[[2]*process{p, s.network}] {
			return
		}
		result := refused
		if apply() {
			result = applied
		}
		if s.chance(0.005) {
			return // the answer is lost
		}
		s.after(s.delay(), func() {
			if !s.blocked[[2]*process{s.network, p}] {
				finish(result)
			}
		})
	})
}

// sweep ends leases that were not renewed in time.
func (e *etcd) sweep() {
	e.sim.after(250*time.Millisecond, e.sweep)
	if e.away {
		return
	}
	expired := func(l *lease) bool { return max(l.expires, e.back+ttl) < e.sim.now }
	before := len(e.members)
	e.members = slices.DeleteFunc(e.members, expired)
	if e.leader != nil && expired(e.leader) {
		e.leader = nil
		e.changed()
	} else if len(e.members) != before {
		e.changed()
	}
}

// publish replaces the world under the fences of the leader's term and the world's revision.
func (e *etcd) publish(term, read int64, w job.World) bool {
	if e.sim.bug != unfenced && (e.leader == nil || e.leader.created != term || e.worldChanged != read) {
		return false
	}
	s := e.sim
	before := int64(0)
	if e.world != nil {
		before = e.world.Generation
	}
	switch {
	case s.worlds[w.Generation]:
		s.broken("two worlds of generation %d", w.Generation)
	case w.Generation != before+1:
		s.broken("generation %d follows %d", w.Generation, before)
	case len(w.Peers) > s.setup.limits.Max:
		s.broken("generation %d has %d members, at most %d may be", w.Generation, len(w.Peers), s.setup.limits.Max)
	case len(w.Peers) > 0 && len(w.Peers) < s.setup.limits.Min && !w.Halt:
		s.broken("generation %d trains with %d members, fewer than %d", w.Generation, len(w.Peers), s.setup.limits.Min)
	}
	for i, p := range w.Peers {
		if w.Rank(p.ID) != i {
			s.broken("generation %d has %s twice", w.Generation, p.ID)
		}
	}
	if s.full = s.full || len(w.Peers) == s.setup.members; s.chaos.apart && s.full && len(w.Peers) < s.setup.members {
		s.broken("generation %d leaves a member out, although another order keeps the pair apart", w.Generation)
	}
	s.worlds[w.Generation] = true
	e.world, e.worldChanged, e.published = &w, e.revision+1, s.now
	s.chaos.published()
	s.after(0, s.repent)
	s.log("etcd: world g=%d %v since=%d durable=%d halt=%v: %s", w.Generation, w.IDs(), w.Since, w.DurableStep,
		w.Halt, w.Reason)
	e.changed()
	return true
}
