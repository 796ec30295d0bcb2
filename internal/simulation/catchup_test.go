package simulation

import (
	"slices"
	"testing"
	"time"

	"evenweave/internal/job"
)

// catchUp is worker/catchup.go and worker/updates.go as events: a spare gets the state of a member that trains on, and
// then each step that it commits.
type catchUp struct {
	spare, from *member
	copied      bool // the other member has copied its state
	arrived     bool // and it is here
	steps       []uint64
	taken       int // of steps
	ready, over bool
	generation  int64 // in which the other member was when it was last in touch
	leaves      bool  // after the last step that is known here
	seen        int   // steps that it has seen
	touched     time.Duration
	since       time.Duration // it is ready
}

const (
	mostSteps   = 8 // kept for a spare
	tries       = 3
	stays       = 30 * time.Second
	quiet       = 2 * time.Minute
	streamQuiet = 15 * time.Second // without a sign of life
	pause       = time.Second      // before the next try with another member, if one has maxReaders
)

// prepare is Loop.catchesUp.
func (m *member) prepare() {
	if w := m.world; w == nil || m.triedIn != w.Generation {
		if m.triedIn = 0; m.received {
			m.tries, m.received = 0, false
		}
		if w != nil {
			m.triedIn = w.Generation
		}
	}
	w, c := m.world, m.catching
	spare := m.sim.large && !m.counts() && !m.leaving && !m.unused && w != nil && !w.Halt && w.Size() > 0 &&
		w.Rank(m.id) < 0
	switch {
	case m.session != nil, m.view == nil, m.view.done != nil:
	case c == nil && spare && m.tries < tries && !m.pausing:
		m.startCatchUp(w)
	case c != nil && w.Rank(m.id) < 0 && (!spare || w.Rank(c.from.id) < 0):
		m.stopCatchUp()
	case c != nil && c.ready && m.sim.now-c.since > stays && w.Rank(m.id) < 0:
		m.unused = true
		m.stopCatchUp()
	}
}

// counts says whether the member has a state that others may rely on.
func (m *member) counts() bool { return m.known && !m.unproved }

func (m *member) startCatchUp(w *job.World) {
	s := m.sim
	from := s.listener(w.Peers[(m.turns+len(m.id))%w.Size()].Address)
	c := &catchUp{spare: m, from: from, touched: s.now}
	m.catching, m.tries, m.turns = c, m.tries+1, m.turns+1
	s.ask(m.process, from.process, func() {
		from.readers = slices.DeleteFunc(from.readers, func(c *catchUp) bool { return c.over })
		if len(from.readers) == maxReaders {
			s.send(from.process, m.process, c.refuse)
			return
		}
		from.readers = append(from.readers, c)
	}, c.end)
	m.in(quiet, func() {
		if !c.arrived {
			c.end()
		}
	})
}

func (m *member) stopCatchUp() {
	if c := m.catching; c != nil {
		c.over, m.catching = true, nil
	}
}

// end is the end of the stream.
func (c *catchUp) end() {
	if m := c.spare; m.catching == c {
		m.stopCatchUp()
		m.loop()
		m.report()
	}
}

// refuse ends the stream of a spare that is one too many. It does not count as a try.
func (c *catchUp) refuse() {
	m := c.spare
	if m.catching != c {
		return
	}
	m.stopCatchUp()
	m.tries, m.pausing = m.tries-1, true
	m.in(pause, func() {
		m.pausing = false
		m.loop()
		m.report()
	})
}

// share is generation.shareStep: the member has committed a step; leaves: it leaves its generation after it.
func (m *member) share(leaves bool) {
	m.readers = slices.DeleteFunc(m.readers, func(c *catchUp) bool { return c.over })
	for _, c := range m.readers {
		if c.copied {
			if c.steps = append(c.steps, m.fingerprint); len(c.steps)-c.taken > mostSteps {
				m.dismiss(c)
				continue
			}
		} else {
			c.copied = true
			m.sendCopy(c)
		}
		c.touch(leaves)
	}
}

// dismiss ends a stream at its sender.
func (m *member) dismiss(c *catchUp) { m.sim.send(m.process, c.spare.process, c.end) }

func (m *member) sendCopy(c *catchUp) {
	s, step, fingerprint, ledger := m.sim, m.step, m.fingerprint, c.spare
	s.transfer(ledger.process, m.process, func() bool { return !c.over }, func() {
		if m.lie() {
			fingerprint = s.Uint64()
		}
	}, func() {
		if c.over || c.arrived {
			return
		}
		c.arrived, ledger.received = true, true
		ledger.known, ledger.unproved, ledger.step, ledger.fingerprint = true, true, step, fingerprint
		c.take(len(c.steps))
	}, c.end)
}

// touch brings the spare the steps up to now.
func (c *catchUp) touch(leaves bool) {
	m := c.from
	n, generation, seen := len(c.steps), m.generation, m.seen
	m.sim.send(m.process, c.spare.process, func() {
		if c.over || n < c.taken {
			return
		}
		c.touched, c.generation, c.leaves, c.seen = m.sim.now, max(c.generation, generation), leaves, seen
		c.take(n)
	})
}

// take repeats the steps up to the n-th.
func (c *catchUp) take(n int) {
	m := c.spare
	for ; c.arrived && c.taken < n; c.taken++ {
		m.step, m.fingerprint = m.step+1, next(m.fingerprint)
		if m.fingerprint != c.steps[c.taken] {
			m.known, m.unproved = false, false
			c.end()
			return
		}
	}
	if ready := c.arrived && c.taken == len(c.steps); ready != c.ready {
		c.ready, c.since = ready, m.sim.now
		m.report()
	}
	m.loop()
}

// sign is a second of a stream: a sign of life in one direction, and the end of one without.
func (m *member) sign() {
	for _, c := range m.readers {
		if !c.over {
			c.touch(false)
		}
	}
	if c := m.catching; c != nil && m.sim.now-c.touched > streamQuiet {
		c.end()
	}
}

// awaits is catchUp.awaited.
func (m *member) awaits(w *job.World) bool {
	c := m.catching
	return c != nil && c.ready && c.generation >= w.Since && c.generation < w.Generation && !c.leaves
}

// hangUpOn ends the streams of a member that dies, or goes on from another state.
func (m *member) hangUpOn() {
	for _, c := range m.readers {
		m.dismiss(c)
	}
	m.readers = nil
}

// TestSparesCatchUp: in the schedules with large states, members do enter worlds with the state that the others have.
func TestSparesCatchUp(t *testing.T) {
	joined := 0
	for seed := uint64(3); seed <= 330; seed += 3 {
		s := newSim(seed, noBug, nil)
		s.run()
		joined += s.caughtUp
	}
	if joined < 100 {
		t.Errorf("%d members have entered worlds after catching up: the schedules show nothing", joined)
	}
}
