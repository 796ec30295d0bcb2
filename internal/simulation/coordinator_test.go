package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

// leader is a coordinator process that leads or stands by: coordinator/term.go as events.
type leader struct {
	*process
	address string

	term    int64 // number of its term; 0: does not lead
	renewed time.Duration
	asking  bool
	policy  *policy.Policy
	view    *view
	reports map[*member]report
	proofs  *proofs

	saveAfter time.Duration
	durable   int64
	saving    bool
	finishing bool
}

type report struct {
	policy.Report
	version int64
	due     []held
	held    held // while holding
	verdict string
}

func (s *sim) spawnLeader() {
	s.addressN++
	l := &leader{process: &process{sim: s, name: fmt.Sprintf("c%d", s.addressN)},
		address: fmt.Sprintf("host:%d", s.addressN)}
	l.see = l.observe
	s.leaders = append(s.leaders, l)
	l.in(s.between(0, 300*time.Millisecond), func() {
		l.campaign()
		l.every(200*time.Millisecond, l.campaign)
		l.every(ttl/4, l.keepAlive)
		l.every(tickEvery, func() {
			l.feed(policy.Tick{})
			l.save()
		})
		l.every(pollInterval, func() { s.etcd.watch(l.process) })
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

// campaign takes the leadership if it is free.
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
	l.term, l.renewed, l.view, l.reports, l.proofs, l.saveAfter = term, s.now, nil, map[*member]report{},
		newProofs(s.now), 0
	l.saving, l.finishing, l.durable = false, false, s.newestDurable()
	l.policy = policy.New("job", l.address, l.durable, s.setup.limits)
	s.log("%s: leads term %d from step %d", l.name, term, l.durable)
	l.observe(v)
}

// keepAlive renews the lease; a leader that cannot renew it in time knows that its term is over.
func (l *leader) keepAlive() {
	if l.term == 0 {
		return
	}
	if l.sim.now-l.renewed > ttl {
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
			l.renewed = l.sim.now
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
	l.proofs.enter(v.world, l.sim.now)
	maps.DeleteFunc(l.reports, func(m *member, _ report) bool { return !l.follows(m) })
	in := policy.Observed{Members: v.members, World: v.world, Numerics: v.numerics}
	for _, m := range l.sim.members {
		if _, known := l.reports[m]; known && uses(l.proofs.present(), m) {
			in.Reports = append(in.Reports, l.fact(m))
		}
	}
	l.feed(in)
}

// feed gives the policy one input and carries out its actions.
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

// fail ends the job by the policy's verdict: only a step that no member can compute may do that.
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
	lost := s.chance(0.002) && !s.chaos.apart && !s.chaos.tame
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

// listen takes a member's status. A member outside the present world counts only about itself.
func (l *leader) listen(m *member, r report) {
	if l.term == 0 || m.dead || l.reports[m].version >= r.version { // a stream ends with its last report
		return
	}
	maps.DeleteFunc(l.reports, func(o *member, _ report) bool { return o != m && o.id == m.id }) // an id has one stream
	l.reports[m] = r
	if uses(l.proofs.present(), m) {
		delete(l.proofs.silent, m.id)
	}
	if r.verdict != "" && l.agree(func(o report) bool {
		return o.verdict == r.verdict &&
			o.Generation == r.Generation
	}) {
		l.sim.broken("the job failed because of %s alone", m.id)
		return
	}
	l.feed(l.fact(m))
	l.save()
	l.ended()
}

// follows reports whether a member is in the world or registered.
func (l *leader) follows(m *member) bool {
	return l.view.world != nil && uses(l.view.world, m) || l.view.registered(m)
}

// fact is the part of a status that the policy may use.
func (l *leader) fact(m *member) policy.Report {
	r := l.reports[m]
	if !uses(l.proofs.present(), m) {
		return policy.Report{Member: m.id, Generation: r.Generation, Step: r.Step, Resting: r.Resting,
			CatchingUp: r.CatchingUp}
	}
	if r.verdict != "" && r.Accusation == nil {
		r.Report.Accusation = &policy.Accusation{Kind: policy.KindOther, Step: r.Step, Detail: r.verdict}
	}
	return r.Report
}

// unfollow drops the report of a member whose stream has ended.
func (l *leader) unfollow(m *member) {
	if l.term == 0 {
		return
	}
	if uses(l.proofs.present(), m) {
		l.proofs.silent[m.id] = l.sim.now
	}
	delete(l.reports, m)
	l.feed(policy.Unfollowed{Member: m.id})
}

// save makes the oldest proved state on offer durable.
func (l *leader) save() {
	if l.term == 0 || l.saving || l.sim.now < l.saveAfter {
		return
	}
	c, ok := l.offer()
	if due := (l.durable/l.sim.every + 1) * l.sim.every; !ok || c.step > due && l.sim.now-l.proofs.began < reportWait &&
		len(l.reports) < len(l.view.members) {
		return
	}
	m, step := c.member, c.step
	s, over, term := l.sim, false, l.term
	l.saving = true
	finish := func(fingerprint uint64, ok bool) {
		if over || l.term != term {
			return
		}
		over = true
		l.in(s.between(time.Millisecond, 50*time.Millisecond), func() {
			if ok && fingerprint != c.fingerprint && l.term == term {
				l.proofs.forged[m] = true
			}
			ok = ok && (fingerprint == c.fingerprint || s.bug == oneIsBelieved)
			if ok { // a term that has ended meanwhile may still write: that is harmless
				l.write(step, fingerprint)
			}
			if l.term == term {
				l.saved(step, ok, m)
			}
		})
	}
	var fingerprint uint64
	var has bool
	l.in(fetchQuiet, func() { finish(0, false) })
	wanted := func() bool { return !over }
	s.transfer(l.process, m.process, wanted, func() { fingerprint, has = m.at(step) },
		func() { finish(fingerprint, has) }, func() {
			l.unfollow(m) // its stream has ended too, even if no event said so
			finish(0, false)
		})
}

// write puts a state on disk under its step.
func (l *leader) write(step int64, fingerprint uint64) {
	s := l.sim
	if before, there := s.disk[step]; there && before != fingerprint || fingerprint != canonical(step) {
		s.broken("two states were published for step %d", step)
	}
	s.disk[step] = fingerprint
	s.log("%s: step %d is durable", l.name, step)
}

func (l *leader) saved(step int64, ok bool, from *member) {
	l.saving = false
	if !ok { // every later status tries again
		l.proofs.avoid[from] = l.sim.now
		if c, ok := l.offer(); ok {
			if failed, before := l.proofs.avoid[c.member]; !before || l.sim.now-failed >= saveRetry {
				l.save()
			}
		}
		if !l.saving {
			l.saveAfter = l.sim.now + saveRetry
		}
		return
	}
	l.durable = max(l.durable, step)
	l.proofs.saved(step)
	l.feed(policy.Durable{Step: step})
	for _, m := range l.sim.members {
		if _, known := l.reports[m]; known && l.term != 0 {
			l.sim.send(l.process, m.process, func() { m.acknowledge(step) })
		}
	}
	l.save()
	l.ended()
}

// ended writes the end of the job when the members hold its last state and it is durable.
func (l *leader) ended() {
	w, total, early := l.view.world, l.sim.total, l.sim.bug == earlyEnd
	if l.term == 0 || l.finishing || w == nil || l.durable < total && !early || !l.agree(func(r report) bool {
		return r.Holding && r.Generation == w.Generation && r.Step == total &&
			(early || r.held.fingerprint == l.sim.disk[total])
	}) {
		return
	}
	e, term := l.sim.etcd, l.term
	l.finishing = true
	e.request(l.process, func() bool {
		if e.leader == nil || e.leader.created != term {
			return false
		}
		if _, durable := l.sim.disk[total]; !durable {
			l.sim.broken("the end was written, but step %d is not durable", total)
		}
		e.done = &job.Done{Step: total, Complete: true}
		e.changed()
		return true
	}, func(a answer) {
		if l.term == term && a != applied {
			l.term = 0
		}
	})
}
