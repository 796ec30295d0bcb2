package simulation

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"evenweave/internal/job"
)

// bug is a planted mistake in the protocol.
type bug int

const (
	noBug          bug = iota
	unfenced           // worlds are published without comparing leadership and revision
	checkpointWins     // a generation opens from the newest checkpoint although a member has a newer state
	eagerCommit        // a step is committed although its collective failed
	hastyLeaver        // a leaving member does not wait for a world without it
	blindLeaver        // a leaving member goes although no coordinator can know that it leaves
	earlyEnd           // the end is written before the last checkpoint is durable
	openNotDoubled     // the opening's deadline does not grow with the backoff
	endlessFaults      // an error that every member gets does not end the job
	oneIsBelieved      // the coordinator believes a single member
	votesTwice         // a state that a member reports twice has two votes
	frozenView         // one unreadable record stops every view of etcd
	wrongBlocks        // what another member sends of a state is not compared with the state's hash
)

// sim is one run: a queue of events in virtual time, on one goroutine. The same seed gives the same run.
type sim struct {
	*rand.Rand
	bug    bug
	now    time.Duration
	events events
	order  int64
	trace  func(string) // nil: no trace

	etcd     *etcd
	network  *process // etcd's end of the network
	blocked  map[[2]*process]bool
	members  []*member
	leaders  []*leader
	addressN int
	listens  map[string]*member // by address: the newest process
	rings    map[int64]*ring
	indexes  map[*job.World]*index

	worlds   map[int64]bool   // generations published
	opened   int64            // the newest generation whose members agreed on a state
	disk     map[int64]uint64 // durable states by step
	deceived bool             // a member has lied: the others may go back to the durable step
	full     bool             // all members have been in one world
	furthest int64            // step committed
	total    int64
	every    int64
	size     time.Duration // that a state takes on the wire
	large    bool          // states are fetched before admission
	// A world of a thousand: members report commits once a second, as such worlds do, and no message takes longer than
	// a probe, of which a failure has a thousand.
	crowd    bool
	relayed  bool  // members pass a checkpoint on to each other; else the leader sends each a copy
	caughtUp int   // members that entered a world with the state of the others
	poisoned int64 // a step that no member can compute; 0: none
	setup    setup
	chaos    chaos
	failed   string
}

// broken reports the first broken promise and ends the run.
func (s *sim) broken(format string, args ...any) {
	if s.failed == "" {
		s.failed = fmt.Sprintf(format, args...)
		s.log("BROKEN: %s", s.failed)
	}
}

func (s *sim) log(format string, args ...any) {
	if s.trace != nil {
		s.trace(fmt.Sprintf("%9.3fs ", s.now.Seconds()) + fmt.Sprintf(format, args...))
	}
}

// clock is the time as the policy gets it.
func (s *sim) clock() time.Time { return time.Unix(0, 0).Add(s.now) }

func (s *sim) at(t time.Duration, do func()) {
	s.order++
	heap.Push(&s.events, event{t, s.order, do})
}

func (s *sim) after(d time.Duration, do func()) { s.at(s.now+d, do) }

func (s *sim) between(lo, hi time.Duration) time.Duration {
	return lo + time.Duration(s.Int64N(int64(hi-lo)+1))
}

func (s *sim) chance(p float64) bool { return s.Float64() < p }

// delay of one message: mostly short, sometimes long enough to overtake and to be late.
func (s *sim) delay() time.Duration {
	switch {
	case s.chance(0.004) && !s.chaos.apart && !s.crowd:
		return s.between(200*time.Millisecond, 2*time.Second)
	case s.chance(0.05):
		return s.between(5*time.Millisecond, 100*time.Millisecond)
	}
	return s.between(200*time.Microsecond, 5*time.Millisecond)
}

// process runs its events one at a time unless it is dead. Events wait while it is paused.
type process struct {
	sim     *sim
	name    string
	dead    bool
	died    time.Duration
	paused  bool
	resumed time.Duration // when it last ran again after a pause; 0: never paused
	backlog []func()
	sending bool       // a state
	outbox  []*sending // that wait to be sent
	reading bool
	see     func(*view) // takes a view of etcd
}

func (p *process) exec(do func()) {
	switch {
	case p.dead:
	case p.paused:
		p.backlog = append(p.backlog, do)
	default:
		do()
		p.sim.tempt(p)
	}
}

// in runs something in the process after a while, like a timer of its own.
func (p *process) in(d time.Duration, do func()) { p.sim.after(d, func() { p.exec(do) }) }

// every repeats something for as long as the process lives.
func (p *process) every(d time.Duration, do func()) {
	p.in(d, func() {
		do()
		p.every(d, do)
	})
}

func (p *process) resume() {
	if p.dead || !p.paused {
		return
	}
	p.paused, p.resumed = false, p.sim.now
	waiting := p.backlog
	p.backlog = nil
	for i, do := range waiting {
		if p.paused { // again, by a fault in between
			p.backlog = append(waiting[i:len(waiting):len(waiting)], p.backlog...)
			return
		}
		p.exec(do)
	}
}

// stalled reports whether the process would notice that it was paused.
func (p *process) stalled() bool {
	return p.resumed > 0 && p.sim.now-p.resumed < pauseFor
}

// send delivers a message, unless the way is blocked when it arrives.
func (s *sim) send(from, to *process, do func()) {
	s.after(s.delay(), func() {
		if !s.blocked[[2]*process{from, to}] {
			to.exec(do)
		}
	})
}

// ask delivers a request. gone runs if nothing listens there; nothing runs if the message is lost.
func (s *sim) ask(from, to *process, handle, gone func()) {
	s.after(s.delay(), func() {
		switch {
		case s.blocked[[2]*process{from, to}]:
		case to.dead:
			from.exec(gone)
		default:
			to.exec(handle)
		}
	})
}

// call asks a process and brings its answer back.
func (s *sim) call(from, to *process, serve func(), answered, gone func()) {
	s.ask(from, to, func() {
		serve()
		s.send(to, from, answered)
	}, gone)
}

// transfer is a call whose answer is a state, which takes time to send. A process sends one state after the other, and
// skips those that are no longer wanted.
func (s *sim) transfer(from, to *process, wanted func() bool, serve func(), answered, gone func()) {
	s.ask(from, to, func() {
		serve()
		to.outbox = append(to.outbox, &sending{from, wanted, answered, gone})
		s.sendNext(to)
	}, gone)
}

// sending is a state on its way to a process.
type sending struct {
	to             *process
	wanted         func() bool
	answered, gone func()
}

// sendNext sends the first state that waits to be sent.
func (s *sim) sendNext(p *process) {
	if p.sending || len(p.outbox) == 0 {
		return
	}
	next := p.outbox[0]
	p.outbox = p.outbox[1:]
	switch {
	case p.dead:
		next.to.exec(next.gone)
		s.sendNext(p)
	case !next.wanted():
		s.sendNext(p)
	default:
		p.sending = true
		s.after(s.size, func() {
			p.sending = false
			if p.dead {
				next.to.exec(next.gone)
			} else {
				s.send(p, next.to, next.answered)
			}
			s.sendNext(p)
		})
	}
}

// run until the job is done or a promise is broken.
func (s *sim) run() {
	for len(s.events) > 0 && s.failed == "" && !s.over() {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
}

type event struct {
	at    time.Duration
	order int64
	do    func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}
