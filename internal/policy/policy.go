// Package policy decides, and does nothing else: it starts no goroutine, reads no clock and does no I/O. Coordinator, worker and simulator
// share it.
//
//	policy.go     inputs, actions, and when a new world is due
//	faults.go     what may not go on for ever
//	deadlines.go  how long each part of a generation may take
//	inquest.go    arbitration: probes, accusations, whom to believe
//	publish.go    what the next world record says
//	world.go      who is in the next world, in which order
//	choose.go     from which state a generation goes on
package policy

import (
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
)

// Limits bound the worlds that the policy publishes.
type Limits struct {
	Min    int // no world that trains has fewer members
	Max    int // nor more; never above the number of micro-batches, which every rank needs one of
	Expect int // the first world of a term waits ExpectFor for this many, or one TTL where the job had a world before
	// ExpectFor is how long.
	ExpectFor time.Duration
	// TTL is the lease time of members: an absence is judged only after it.
	TTL time.Duration
}

// Outcome is what a probe of a member found.
type Outcome int

const (
	Alive   Outcome = iota + 1 // it answered
	Refused                    // nothing listens at its address: the process is gone
	Silent                     // no answer in time: stopped, or out of reach
)

// Inputs of the policy. Each is a fact that the controller saw; none is a command but Halt. All but Unpublished may be lost,
// repeated or late: the policy asks again.
type (
	// Observed is what etcd holds now.
	Observed struct {
		Members  []job.Member
		World    *job.World
		Numerics string
		Told     []Told // by members of this world, maybe before the world was read: known before anything is decided
	}
	// Told is a member's status.
	Told struct {
		Member     string
		Generation int64
		Committed  bool // a step of that generation, or more
		Holding    bool // it serves a verified state, computing nothing
		Resting    bool // it computes nothing and waits for no peer: it may enter a world
		Step       int64
		Accusation *Accusation // why its part in that generation is over, if it broke
	}
	// Accusation is one edge of the wait-for graph, told by who waited.
	Accusation struct {
		Suspect string // "": nobody but the reporter itself
		Kind    string // one of the Kind constants; any other blames nobody
		Step    int64
		Phase   string
		Detail  string
		Paused  bool // the reporter itself had not run for a while: void as evidence
	}
	// Unfollowed says that the stream from a member ended by itself.
	Unfollowed struct{ Member string }
	// Probed is the result of a probe that the policy asked for.
	Probed struct {
		Member  string
		Outcome Outcome
	}
	// Unpublished says that a Publish or AdoptNumerics failed, or that nobody knows whether it did; the policy decides anew.
	Unpublished struct{}
	// Durable says that a checkpoint of this step is on disk.
	Durable struct{ Step int64 }
	// Halt asks to stop after the current step and hold the state.
	Halt struct{}
	// Tick says that time has passed.
	Tick struct{}
)

// Kinds of accusation that the policy tells apart.
const (
	KindBroken      = "broken"      // the stream to the suspect broke
	KindProtocol    = "protocol"    // the suspect sent what does not belong there
	KindUnreachable = "unreachable" // no stream to or from the suspect came about
	KindDeadline    = "deadline"    // the suspect's stream stands, and was silent for too long
	KindFetch       = "fetch"       // the reporter could not fetch a state, from the suspect or ("") the coordinator
	KindOther       = "other"       // the reporter could not go on, through no peer's fault
	// KindWaiting accuses nobody, and its collective is not over: it takes longer than Deadlines.Suspect, so the others should be probed.
	KindWaiting = "waiting"
)

// Actions that the policy asks the controller for.
type (
	Publish       struct{ World job.World }
	Probe         struct{ Member, Address string }
	AdoptNumerics struct{ Value string }
	Note          struct{ Text string }
	// Fail ends the job, for good.
	Fail struct{ Failure string }
)

// Policy decides the worlds of a job; the same inputs give the same actions.
// At most one Publish or AdoptNumerics is under way at a time: until its result is Observed, or Unpublished.
type Policy struct {
	limits  Limits
	job     string // UUID
	address string // of the coordinator that publishes

	members  []job.Member
	world    *job.World
	numerics string
	floor    int64
	halting  bool
	known    map[string]*standing // by member, registered or in the world

	since     time.Time // when the first member was ready, before this term's first world
	found     int64     // the generation that stood when this term began; 0: none did
	opened    int64     // the newest generation in which a member committed or held
	pending   int64     // generation being published; 0: none
	adopting  bool
	inquest   *inquest // into the end of the present generation
	strikes   map[pair]int
	own       ownFaults
	fetches   map[string]map[string]bool // by suspect: members that could not fetch its state; "": the coordinator's
	failure   string                     // the job's; nothing is published any more
	voids     int                        // failures in a row that only paused members told of
	fruitless int                        // worlds in a row that did not open
	published time.Time                  // when the last world was
	hearing   time.Time                  // since when a forced world waits for members; zero: it does not
	dismissed map[string]string          // by registered member: why it is to end
	noted     string
}

// standing is what the policy knows of one member beside its record.
type standing struct {
	told      Told
	reborn    bool      // it is another process than the one that was in the newest generation that opened
	heard     bool      // it told something or answered: a registration alone may be a dead process's
	unheard   time.Time // since when it is waited for as a joiner; zero: it is not
	named     bool      // people were told that it does not answer
	probing   time.Time // since when a probe is under way; zero: none is
	answered  time.Time // when it last answered one
	doubted   int64     // the generation whose members wait, when the probe under way was sent
	silent    bool      // it is suspect because it did not answer
	suspect   bool      // the last probe failed: not used until one succeeds
	absent    time.Time // since when this member of the world is not registered; zero: it is
	benched   time.Time // not used until then; zero: not benched
	benchings int       // in a row
	benchedAt int64     // its step then
	faults    int       // collectives in a row that failed through it although it answers
	helpless  int       // and those in which it could not reach its neighbour
	unrested  time.Time // since when it is out of the world and does not come to rest; zero: it does
	stuck     bool      // people were told of that
}

// New returns the policy of one term. floor is the newest durable step.
func New(uuid, address string, floor int64, limits Limits) *Policy {
	limits.Max = max(1, limits.Max)
	limits.Min = min(max(1, limits.Min), limits.Max)
	limits.Expect = min(limits.Expect, limits.Max)
	return &Policy{job: uuid, address: address, floor: floor, limits: limits, known: map[string]*standing{}, strikes: map[pair]int{},
		fetches: map[string]map[string]bool{}, dismissed: map[string]string{}}
}

// Step takes one input and returns what to do. now is a monotonic time that never runs backwards.
func (p *Policy) Step(now time.Time, input any) []any {
	var out []any
	switch in := input.(type) {
	case Observed:
		out = p.observe(now, in)
	case Told:
		out = p.tell(now, in)
	case Unfollowed:
		out = p.probe(now, in.Member)
	case Probed:
		p.judge(now, in)
	case Unpublished:
		p.pending, p.adopting = 0, false
	case Durable:
		p.floor = max(p.floor, in.Step)
	case Halt:
		p.halting = true
	case Tick:
		out = p.tick(now)
	}
	return append(out, p.decide(now)...)
}

func (p *Policy) observe(now time.Time, in Observed) []any {
	p.members = in.Members
	if in.Numerics != "" {
		p.numerics, p.adopting = in.Numerics, false
	}
	if w := in.World; w != nil && (p.world == nil || w.Generation > p.world.Generation) {
		if p.world == nil && p.pending == 0 {
			p.found = w.Generation
		}
		p.world, p.inquest = w, nil
		for _, m := range in.Members { // by an earlier term
			if why := w.Dismissed[m.ID]; why != "" {
				p.dismissed[m.ID] = why
			}
		}
		if w.Generation >= p.pending {
			p.pending = 0
		}
	}
	p.forget()
	var out []any
	for _, peer := range p.peers() {
		s := p.standing(peer.ID)
		if _, registered := p.member(peer.ID); registered {
			s.absent = time.Time{}
		} else if s.absent.IsZero() {
			s.absent = now
			out = append(out, p.probe(now, peer.ID)...) // a process that is gone says so at once
		}
	}
	for _, told := range in.Told {
		out = append(out, p.tell(now, told)...)
	}
	p.open()
	return out
}

// forget drops what is known of members that are neither registered nor in the world.
func (p *Policy) forget() {
	known := map[string]*standing{}
	keep := func(id string) {
		if known[id] = p.known[id]; known[id] == nil {
			known[id] = &standing{}
		}
	}
	for _, m := range p.members {
		keep(m.ID)
	}
	for _, peer := range p.peers() {
		keep(peer.ID)
	}
	p.known = known
	maps.DeleteFunc(p.dismissed, func(id, _ string) bool { _, registered := p.member(id); return !registered })
	for ids := range p.strikes {
		if known[ids.a] == nil || known[ids.b] == nil {
			delete(p.strikes, ids)
		}
	}
}

func (p *Policy) tell(now time.Time, in Told) (out []any) {
	s := p.standing(in.Member)
	if s.suspect {
		out = p.probe(now, in.Member) // it speaks: it may be back
	}
	if s.told.Generation == in.Generation {
		in.Committed = in.Committed || s.told.Committed
	}
	s.told, s.heard, s.reborn = in, true, s.reborn || in.Generation < s.told.Generation
	if in.Committed && p.world != nil && p.world.Rank(in.Member) >= 0 && in.Step > p.own.step {
		p.own = ownFaults{}
	}
	if in.Committed && in.Step >= s.benchedAt+provenSteps {
		s.benchings = 0
	}
	p.open()
	if p.waits(in.Member) {
		out = append(out, p.doubt(now)...)
	}
	return out
}

// open notes that the present generation works, and forgives what was held against its members.
func (p *Policy) open() {
	if p.world == nil || p.opened == p.world.Generation {
		return
	}
	for _, peer := range p.world.Peers {
		if t := p.standing(peer.ID).told; t.Generation == p.world.Generation && (t.Committed || t.Holding) {
			p.opened = p.world.Generation
		}
	}
	if p.opened != p.world.Generation {
		return
	}
	p.fruitless, p.voids = 0, 0
	clear(p.fetches)
	for i, peer := range p.world.Peers {
		s := p.standing(peer.ID)
		s.faults, s.helpless, s.reborn = 0, 0, false
		delete(p.strikes, pairOf(peer, p.world.Peers[(i+1)%len(p.world.Peers)]))
	}
}

// decide compares the world with what the facts ask for.
func (p *Policy) decide(now time.Time) []any {
	switch {
	case p.failure != "" && p.inquest == nil, p.pending != 0, p.adopting:
		return nil
	case p.numerics == "":
		return p.adopt()
	case p.Abandoned():
		return p.gather(now)
	case slices.ContainsFunc(p.peers(), func(peer job.Peer) bool { return !p.present(peer) }):
		return p.publish(now, p.losses(), true, false)
	case slices.ContainsFunc(p.peers(), p.testified):
		return p.inquire(now)
	case p.opened == p.world.Generation:
		return p.publishPlanned(now)
	}
	return nil // members are on their way into this world
}

// adopt takes the numerics of the first member that could train for the job's.
func (p *Policy) adopt() []any {
	i := slices.IndexFunc(p.members, func(m job.Member) bool { return m.Speaks() == nil })
	if i < 0 {
		return nil
	}
	p.adopting = true
	return []any{AdoptNumerics{p.members[i].Numerics}}
}

// Abandoned says whether nobody is in a world: none was published or is being published, or all its members are gone. Then only the disk
// has the state. (Members may train in a world before its publisher has read it back.)
func (p *Policy) Abandoned() bool {
	return p.pending == 0 && !slices.ContainsFunc(p.peers(), p.present)
}

func (p *Policy) peers() []job.Peer {
	if p.world == nil {
		return nil
	}
	return p.world.Peers
}

func (p *Policy) member(id string) (job.Member, bool) {
	i := slices.IndexFunc(p.members, func(m job.Member) bool { return m.ID == id })
	if i < 0 {
		return job.Member{}, false
	}
	return p.members[i], true
}

// standing of a member; of a stranger, one that nobody keeps.
func (p *Policy) standing(id string) *standing {
	if s := p.known[id]; s != nil {
		return s
	}
	return &standing{}
}

// note tells people something once, until it changes.
func (p *Policy) note(text string) []any {
	if text == p.noted {
		return nil
	}
	p.noted = text
	return []any{Note{text}}
}
