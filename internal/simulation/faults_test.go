package simulation

import (
	"fmt"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

// setup is the shape of a run.
type setup struct {
	limits  policy.Limits
	members int
	leaders int
}

// chaos is the faults of a run, and when they stop.
type chaos struct {
	sim    *sim
	budget int
	rate   float64       // the probability of a fault after an event
	from   int64         // no faults before this step
	until  time.Duration // and none after this time
	rift   bool          // two members can never reach each other
	apart  bool          // that is the only fault, so no member is left out
	liar   bool          // one member lies, and the others are in reach: a majority reports
	kinds  []int         // only faults of these kinds, many of them, pauses are short; nil: all kinds
	tame   bool          // only deaths: every member is in reach and no probe is lost, so no step is lost
	healed time.Duration // when faults stopped; 0: not yet
	worlds int           // published since
}

const (
	endLimit     = 5 * time.Minute // of virtual time, from the last fault to the job's end
	maxNewWorlds = 30              // after the last fault: more is a loop
)

// Kinds of faults, by their numbers in chaos.fault, for schedules of many.
var (
	roughly = []int{0, 0, 8, 8, 2, 1} // deaths and pauses
	blindly = []int{0, 8, 15}         // and members are cut off from etcd when they are asked to leave
)

// simulate runs one seed and returns the broken promise, or "".
func simulate(seed uint64, planted bug, trace func(string), kinds ...int) string {
	s := newSim(seed, planted, trace, kinds...)
	s.run()
	return s.failed
}

func (s *sim) over() bool { return s.etcd.done != nil }

// published counts the worlds after the last fault.
func (c *chaos) published() {
	if c.healed == 0 {
		return
	}
	if c.worlds++; c.worlds > maxNewWorlds {
		c.sim.broken("%d worlds since faults stopped at %v, and no end", c.worlds, c.healed)
	}
}

// tempt may cause a fault right after an event of a process.
func (s *sim) tempt(p *process) {
	c := &s.chaos
	if c.healed > 0 {
		return
	}
	if c.budget == 0 || s.now > c.until {
		c.heal()
		return
	}
	if s.Float64() >= c.rate || s.furthest < c.from {
		return
	}
	c.budget--
	if s.chance(0.5) {
		p = nil // any process
	}
	c.fault(p)
}

// fault is one fault, preferably of the given process.
func (c *chaos) fault(p *process) {
	s := c.sim
	m, l := s.someMember(p), s.someLeader(p)
	kinds := 15
	if c.tame {
		kinds = 7
	}
	if c.liar {
		kinds = 8
	}
	kind, longest := s.IntN(kinds), 12*time.Second
	if c.kinds != nil {
		kind, longest = c.kinds[s.IntN(len(c.kinds))], 2*time.Second
	}
	switch kind {
	case 0:
		s.kill(m, true)
	case 1:
		s.killLeader(l)
	case 2:
		s.log("FAULT: a member joins")
		s.spawnNew()
	case 3:
		if m != nil {
			m.exec(m.leave)
		}
	case 4:
		if s.chance(0.2) {
			s.log("FAULT: all members die")
			for _, m := range append([]*member(nil), s.members...) {
				s.kill(m, true)
			}
		} else {
			s.kill(m, true)
			s.killLeader(l)
		}
	case 5:
		s.log("FAULT: all members are replaced, as by a roll-out")
		for _, m := range append([]*member(nil), s.members...) {
			if !m.dead && !m.leaving {
				s.spawnNew()
				m.in(s.between(0, 3*time.Second), m.leave)
			}
		}
	case 6:
		s.log("FAULT: a record of a member cannot be read")
		s.etcd.unreadable = true
		s.etcd.changed()
	case 7:
		if c.liar {
			s.corrupt(m)
		}
	case 8, 9:
		if m != nil {
			s.pause(m.process, s.between(300*time.Millisecond, longest))
		}
	case 10:
		if l != nil {
			s.pause(l.process, s.between(300*time.Millisecond, 15*time.Second))
		}
	case 11:
		s.log("FAULT: etcd is away")
		s.etcd.away = true
		s.after(s.between(300*time.Millisecond, 15*time.Second), s.etcdBack)
	case 15:
		if m != nil && !m.dead {
			s.log("FAULT: %s is cut off from etcd", m.id)
			way := [2]*process{s.network, m.process}
			s.blocked[way] = true
			s.after(s.between(time.Second, 5*time.Second), func() { delete(s.blocked, way) })
			m.in(s.between(0, 2*time.Second), m.leave)
		}
	default:
		c.part(m, l)
	}
}

// tear cuts the first two members off from each other forever.
func (s *sim) tear() {
	a, b := s.members[0].process, s.members[1].process
	s.blocked[[2]*process{a, b}], s.blocked[[2]*process{b, a}] = true, true
}

// backedOff is a job with doubled deadlines and a pair that cannot connect.
func (s *sim) backedOff() {
	s.setup.members, s.setup.leaders = 4+s.IntN(2), 1
	s.setup.limits = policy.Limits{Min: 1, Max: s.setup.members, Expect: s.setup.members, ExpectFor: 5 * time.Second,
		TTL: ttl}
	s.chaos = chaos{sim: s, until: time.Minute, rift: true, apart: true}
	s.poisoned = 0
	s.worlds[1] = true
	s.etcd.world = &job.World{Generation: 1, Since: 1, Backoff: 1 + s.IntN(3)}
	s.etcd.changed()
}

// part cuts two processes off from each other, or in one direction.
func (c *chaos) part(m *member, l *leader) {
	s := c.sim
	if m == nil || l == nil || m.dead {
		return
	}
	a, b := m.process, l.process
	switch s.IntN(4) {
	case 0:
		b = s.network
	case 1, 2:
		if other := s.someMember(nil); other != nil {
			b = other.process
		}
	}
	if a == b {
		return
	}
	ways := [][2]*process{{a, b}, {b, a}}
	d := s.between(300*time.Millisecond, 40*time.Second)
	if s.chance(0.3) {
		d = time.Hour // until faults stop
	}
	if n := s.IntN(4); n < 2 {
		ways = ways[n : n+1]
	}
	for _, way := range ways {
		s.log("FAULT: nothing goes from %s to %s", way[0].name, way[1].name)
		s.blocked[way] = true
		s.after(d, func() { delete(s.blocked, way) })
	}
}

// heal ends all faults: all processes run, reach each other, and there are enough of each kind.
func (c *chaos) heal() {
	s := c.sim
	c.healed = s.now
	s.log("faults stop")
	clear(s.blocked)
	if c.rift {
		s.tear()
	}
	s.etcdBack()
	s.after(0, func() {
		for _, m := range s.members {
			m.resume()
		}
		for _, l := range s.leaders {
			l.resume()
		}
	})
	s.repent()
	c.staff()
	s.after(endLimit, func() {
		s.broken("no end within %v after faults stopped at %v", endLimit, c.healed)
	})
}

// staff adds members if there are too few, as an operator would.
func (c *chaos) staff() {
	s, alive := c.sim, 0
	for _, m := range s.members {
		if !m.dead && !m.leaving && !m.faulty {
			alive++
		}
	}
	if c.rift && !s.members[0].dead && !s.members[1].dead { // a ring needs a member between them, or leaves one out
		alive--
	}
	for ; alive < s.setup.limits.Min; alive++ {
		s.spawnNew()
	}
	s.after(10*time.Second, c.staff)
}

func (s *sim) etcdBack() {
	if s.etcd.away {
		s.log("etcd is back")
		s.etcd.away, s.etcd.back = false, s.now
	}
}

func (s *sim) pause(p *process, d time.Duration) {
	if p.dead || p.paused || p == s.network {
		return
	}
	s.log("FAULT: %s is paused for %v", p.name, d)
	p.paused = true
	s.after(d, func() {
		if p.paused && !p.dead {
			s.log("%s runs again", p.name)
			p.resume()
		}
	})
}

// kill ends a member's process: its streams break at once, and its supervisor may start another.
func (s *sim) kill(m *member, restart bool) {
	if m == nil || m.dead {
		return
	}
	s.log("FAULT: %s dies at step %d", m.id, m.stateStep())
	m.dead, m.died = true, s.now
	m.stopCatchUp()
	if x := m.session; x != nil {
		x.over = true
		x.abort(policy.Accusation{Suspect: m.id, Kind: policy.KindBroken})
	}
	s.repent()
	s.hangUp(m)
	if !restart || m.leaving {
		return
	}
	s.after(s.between(200*time.Millisecond, 4*time.Second), func() {
		switch n := s.IntN(4); {
		case n == 0 && !s.chaos.tame:
			s.spawn(m.id, m.address) // as in a StatefulSet with fixed ports; it counts as gone until the next probe
		case n == 1 && !s.chaos.tame:
			s.addressN++
			s.spawn(m.id, fmt.Sprintf("host:%d", s.addressN))
		default:
			s.spawnNew()
		}
	})
}

func (s *sim) killLeader(l *leader) {
	if l == nil || l.dead {
		return
	}
	s.log("FAULT: %s dies", l.name)
	l.dead = true
	s.after(s.between(200*time.Millisecond, 2*time.Second), s.spawnLeader)
}

// someMember is the given member or any live one; nil: none lives.
func (s *sim) someMember(p *process) *member {
	var alive []*member
	for _, m := range s.members {
		if m.process == p {
			return m
		}
		if !m.dead {
			alive = append(alive, m)
		}
	}
	if len(alive) == 0 {
		return nil
	}
	return alive[s.IntN(len(alive))]
}

func (s *sim) someLeader(p *process) *leader {
	var alive []*leader
	for _, l := range s.leaders {
		if l.process == p {
			return l
		}
		if !l.dead {
			alive = append(alive, l)
		}
	}
	if len(alive) == 0 {
		return nil
	}
	return alive[s.IntN(len(alive))]
}
