package simulation

import (
	"fmt"
	"slices"
	"time"

	"evenweave/job"
	"evenweave/policy"
)

// leader is a coordinator process, leading or waiting to: coordinator/term.go as events.
type leader struct {
	*process
	address string

	term   int64 // number of its term; 0: does not lead
	heard  time.Duration
	asking bool
	policy *policy.Policy
	view   *view
	told   map[*member]report

	durable   int64
	saving    bool
	finishing bool
}

type report struct {
	policy.Told
	version int64
	due     []int64
}

func (s *sim) spawnLeader() {
	s.addressN++
	l := &leader{process: &process{sim: s, name: fmt.Sprintf("c%d", s.addressN)}, address: fmt.Sprintf("host:%d", s.addressN)}
	l.see = l.observe
	s.leaders = append(s.leaders, l)
	l.in(s.between(0, 300*time.Millisecond), func() {
		l.campaign()
		l.every(200*time.Millisecond, l.campaign)
		l.every(ttl/4, l.keepAlive)
		l.every(500*time.Millisecond, func() { l.feed(policy.Tick{}) })
		l.every(2*time.Second, func() { s.etcd.watch(l.process) })
	})
}

func (s *sim) leaderAt(address string) *leader {
	return s.leaders[slices.IndexFunc(s.leaders, func(l *leader) bool { return l.address == address })]
}

func (s *sim) newestDurable() int64 {
	newest := int64(0)
	for step := range s.disk {
		newest = max(newest, step)
	}
	return newest
}

// campaign takes the leadership if nobody has it.
func (l *leader) campaign() {
	if l.term != 0 || l.asking {
		return
	}
	e := l.sim.etcd
	var term int64
	var read *view
	l.asking = true
	e.request(l.process, func() bool {
		if l.dead || e.leader != nil && e.leader.owner != l.process {
			return false
		}
		e.leader = &lease{owner: l.process, created: e.revision + 1, expires: l.sim.now + ttl, address: l.address}
		e.changed()
		term, read = e.leader.created, e.view
		return true
	}, func(a answer) {
		l.asking = false
		if a == applied {
			l.lead(term, read)
		}
	})
}

// lead begins a term with what the directory and etcd hold.
func (l *leader) lead(term int64, v *view) {
	s := l.sim
	l.term, l.heard, l.view, l.told = term, s.now, nil, map[*member]report{}
	l.saving, l.finishing, l.durable = false, false, s.newestDurable()
	l.policy = policy.New("job", l.address, l.durable, s.setup.limits)
	s.log("%s: leads term %d from step %d", l.name, term, l.durable)
	l.observe(v)
}

// keepAlive holds the lease; a leader that is not heard in time knows that its term is over.
func (l *leader) keepAlive() {
	if l.term == 0 {
		return
	}
	if l.sim.now-l.heard > ttl {
		l.sim.log("%s: its term is over", l.name)
		l.term = 0
		return
	}
	e, term := l.sim.etcd, l.term
	e.request(l.process, func() bool {
		if e.leader == nil || e.leader.created != term {
			return false
		}
		e.leader.expires = l.sim.now + ttl
		return true
	}, func(a answer) {
		switch {
		case term != l.term:
		case a == applied:
			l.heard = l.sim.now
		case a == refused:
			l.term = 0
		}
	})
}

func (l *leader) observe(v *view) {
	if l.term == 0 || l.view != nil && v.revision < l.view.revision {
		return
	}
	l.view = v
	l.feed(policy.Observed{Members: v.members, World: v.world, Numerics: v.numerics})
}

// feed gives the policy one input and carries out what it asks for.
func (l *leader) feed(input any) {
	if l.term == 0 {
		return
	}
	s, e, term := l.sim, l.sim.etcd, l.term
	for _, action := range l.policy.Step(s.clock(), input) {
		again := func(a answer) {
			if a != applied {
				l.in(100*time.Millisecond, func() {
					if l.term == term {
						l.feed(policy.Unpublished{})
					}
				})
			}
		}
		switch a := action.(type) {
		case policy.Publish:
			read := l.view.worldChanged
			e.request(l.process, func() bool { return e.publish(term, read, a.World) }, again)
		case policy.AdoptNumerics:
			e.request(l.process, func() bool {
				if e.leader == nil || e.leader.created != term || e.numerics != "" {
					return false
				}
				e.numerics = a.Value
				e.changed()
				return true
			}, again)
		case policy.Probe:
			l.probe(a)
		case policy.Fail:
			l.fail(a.Failure)
		case policy.Note:
			s.log("%s: %s", l.name, a.Text)
		}
	}
}

// fail ends the job by the policy's verdict: only what no member can compute may do that.
func (l *leader) fail(why string) {
	s := l.sim
	if s.bug == endlessFaults {
		return
	}
	healthy := slices.ContainsFunc(l.view.world.Peers, func(p job.Peer) bool { return !s.listener(p.Address).faulty })
	if s.poisoned == 0 && healthy {
		s.broken("the job failed: %s", why)
	}
	s.log("%s: the job fails: %s", l.name, why)
	s.etcd.done = &job.Done{Failure: why}
}

// probe asks the process at an address whether it is that member; the result may get lost.
func (l *leader) probe(a policy.Probe) {
	s, over, term := l.sim, false, l.term
	lost := s.chance(0.002) && !s.chaos.apart
	finish := func(o policy.Outcome) {
		if over || lost || l.term != term {
			return
		}
		over = true
		s.log("%s: probed %s: %d", l.name, a.Member, o)
		l.feed(policy.Probed{Member: a.Member, Outcome: o})
	}
	target, found := s.listener(a.Address), policy.Refused
	l.in(policy.ProbeTimeout, func() { l.silent(a, finish) })
	s.call(l.process, target.process, func() {
		if target.id == a.Member {
			found = policy.Alive
		}
	}, func() { finish(found) }, func() { finish(policy.Refused) })
}

// silent ends a probe that had no answer: it proves nothing if this process itself did not run meanwhile.
func (l *leader) silent(a policy.Probe, finish func(policy.Outcome)) {
	if l.resumed > 0 && l.sim.now-l.resumed < policy.ProbeTimeout {
		l.in(policy.ProbeTimeout, func() { finish(policy.Silent) })
		return
	}
	finish(policy.Silent)
}

// listen takes a member's status.
func (l *leader) listen(m *member, told policy.Told, version int64, due []int64) {
	if l.term == 0 || l.told[m].version >= version {
		return
	}
	l.told[m] = report{told, version, due}
	l.feed(told)
	l.save(m)
	l.ended(m)
}

// save makes the oldest state on offer durable.
func (l *leader) save(m *member) {
	r, step := l.told[m], int64(-1)
	for _, due := range r.due {
		if due > l.durable && step < 0 {
			step = due
		}
	}
	if step < 0 && r.Holding && r.Step > l.durable && l.view.world != nil && r.Generation == l.view.world.Generation {
		step = r.Step
	}
	if step < 0 || l.saving {
		return
	}
	s, over, term := l.sim, false, l.term
	l.saving = true
	finish := func(print uint64, ok bool) {
		if over || l.term != term {
			return
		}
		over = true
		l.in(s.between(time.Millisecond, 50*time.Millisecond), func() {
			if ok { // a term that is over meanwhile may still write: it cannot do harm
				l.write(step, print)
			}
			if l.term == term {
				l.saved(step, ok)
			}
		})
	}
	var print uint64
	var ok bool
	l.in(5*time.Second, func() { finish(0, false) })
	s.call(l.process, m.process, func() { print, ok = m.at(step) }, func() { finish(print, ok) }, func() { finish(0, false) })
}

// write puts a state on disk under its step.
func (l *leader) write(step int64, print uint64) {
	s := l.sim
	if before, there := s.disk[step]; there && before != print || print != canonical(step) {
		s.broken("two states were published for step %d", step)
	}
	s.disk[step] = print
	s.log("%s: step %d is durable", l.name, step)
}

func (l *leader) saved(step int64, ok bool) {
	l.saving = false
	if !ok {
		return // every later status asks again
	}
	l.durable = max(l.durable, step)
	l.feed(policy.Durable{Step: step})
	for _, m := range l.sim.members {
		if _, known := l.told[m]; known && l.term != 0 {
			l.sim.send(l.process, m.process, func() { m.acknowledge(step) })
			l.save(m)
			l.ended(m)
		}
	}
}

// ended writes the end of the job when what a member holds is all there is to compute, and durable.
func (l *leader) ended(m *member) {
	r, w := l.told[m], l.view.world
	durable := l.durable == r.Step || l.sim.bug == earlyEnd
	if l.term == 0 || l.finishing || !r.Holding || w == nil || r.Generation != w.Generation || !durable || r.Step < l.sim.total {
		return
	}
	e, term := l.sim.etcd, l.term
	l.finishing = true
	e.request(l.process, func() bool {
		if e.leader == nil || e.leader.created != term {
			return false
		}
		if _, durable := l.sim.disk[r.Step]; !durable {
			l.sim.broken("the end was written, but step %d is not durable", r.Step)
		}
		e.done = &job.Done{Step: r.Step, Complete: true}
		e.changed()
		return true
	}, func(a answer) {
		if l.term == term && a != applied {
			l.term = 0
		}
	})
}
