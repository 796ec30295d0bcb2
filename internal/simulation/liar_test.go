package simulation

import "slices"

// corrupt lets a member lie in its reports while at least two honest members of its world live. The protocol promises
// nothing about a liar that no two others can contradict.
func (s *sim) corrupt(m *member) {
	if m == nil || slices.ContainsFunc(s.members, func(o *member) bool { return o.lies > 0 && !o.dead }) {
		return
	}
	s.log("FAULT: %s lies", m.id)
	m.lies = 1 + s.IntN(30)
}

// honest counts the other members of this one's world that live, have a state and were in the world before.
func (m *member) honest() (n int) {
	w := m.sim.etcd.world
	if w == nil || w.Rank(m.id) < 0 {
		return 0
	}
	for _, o := range m.sim.members {
		if o != m && !o.dead && !o.leaving && o.known && uses(w, o) && !slices.Contains(w.Fresh, o.id) {
			n++
		}
	}
	return n
}

// lie reports whether to lie now.
func (m *member) lie() bool {
	if m.lies == 0 || m.honest() < 2 || m.sim.chaos.healed > 0 || m.sim.chance(0.5) {
		return false
	}
	m.lies--
	m.sim.deceived = true
	return true
}

// repent replaces a liar's report when it is no longer one of three, or when faults stop.
func (s *sim) repent() {
	for _, m := range s.members {
		if m.lied && (m.honest() < 2 || s.chaos.healed > 0) {
			m.lies = 0
			m.report()
		}
	}
}

// forge makes a report a lie: about due states, the held state, the step, the job's end.
func (m *member) forge(r report) report {
	s := m.sim
	m.lied = true
	fingerprint := s.Uint64()
	steps := []int64{s.total, s.furthest + 1 + s.Int64N(3), (s.furthest/s.every + 1) * s.every, 1 << 62, -1}
	step := steps[s.IntN(len(steps))]
	switch s.IntN(5) {
	case 0:
		r.due = []held{{step, m.generation, fingerprint}}
	case 1:
		r.due = slices.Clone(r.due)
		for i := range r.due {
			r.due[i].fingerprint = fingerprint
		}
	case 2:
		r.Holding, r.Resting, r.Step, r.held = true, true, s.total, held{s.total, m.generation, fingerprint}
		r.due = []held{r.held}
	case 3:
		r.verdict = "a lie"
	case 4:
		r.Step, r.Committed = step, true
	}
	return r
}

// forgeClaim makes a member's part in an exchange a lie.
func (m *member) forgeClaim(c claim) claim {
	s := m.sim
	switch s.IntN(4) {
	case 0:
		c.step, c.fingerprint = s.total, s.Uint64()
	case 1:
		c.step, c.fingerprint = c.step+s.Int64N(3)-1, s.Uint64()
	case 2:
		c.fingerprint = s.Uint64()
	case 3:
		c.durable = []int64{0, s.total, 1 << 62}[s.IntN(3)]
	}
	return c
}

// liesInOpening reports whether a member may lie in this exchange: in a larger world than of two, another with a state
// can contradict it.
func (x *session) liesInOpening() bool {
	n := 0
	if x.m.lies == 0 {
		return false
	}
	for _, y := range x.ring.sessions {
		if y != nil && y != x && y.m.known && !slices.Contains(x.world.Fresh, y.m.id) {
			n++
		}
	}
	return n >= 1 && x.world.Size() > 2 && x.m.known && x.m.lie()
}
