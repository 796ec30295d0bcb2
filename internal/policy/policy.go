// Package policy makes decisions only: it starts no goroutine, reads no clock and does no I/O. Coordinator, worker and
// simulator share it.
//
//	policy.go     inputs, actions, and when a new world is due
//	faults.go     limits on failures that repeat
//	deadlines.go  how long each part of a generation may take
//	arbitration.go  after a failure: probes, accusations, consequences
//	publish.go    the next world record
//	holders.go    whose state counts in it
//	world.go      the members of the next world and their order
//	choose.go     the state that a generation goes on from
package policy

import (
	"maps"
	"slices"
	"time"

	"evenweave/internal/job"
)

// Limits bound the worlds that the policy publishes.
type Limits struct {
	Min int // the fewest members of a world that trains
	Max int // the most; never above the number of micro-batches: every rank needs one
	// Expect: once Min members are ready, the first world of a term waits ExpectFor for this many, or one TTL if the
	// job had a world before.
	Expect    int
	ExpectFor time.Duration
	// TTL is the lease time of members: an absence counts only after it.
	TTL time.Duration
}

// Outcome is what a probe of a member found.
type Outcome int

const (
	Alive   Outcome = iota + 1 // it answered
	Refused                    // nothing listens at its address: the process is gone
	Silent                     // no answer in time: stopped, or out of reach
)

// Inputs of the policy. Each is a fact that the controller observed; only Halt is a command. All but Unpublished may be
// lost, repeated or late: the policy asks again.
type (
	// Observed is what etcd holds now.
	Observed struct {
		Members  []job.Member
		World    *job.World
		Numerics string
		Reports  []Report // of members of this world, maybe from before the world was read
	}
	// Report is a member's status.
	Report struct {
		Member     string
		Generation int64
		Agreed     bool // with all members of that generation on one state
		Committed  bool // one or more steps of that generation
		Holding    bool // it serves a verified state and computes nothing
		Resting    bool // it computes nothing and waits for no peer: it may enter a world
		CatchingUp bool // likewise, but it fetches the state first, so that the others need not wait for it
		Step       int64
		Accusation *Accusation // why that generation failed on it; nil: it did not
	}
	// Accusation is one edge of the wait-for graph, reported by the member that waited.
	Accusation struct {
		Suspect string // "": the reporter itself
		Kind    string // one of the Kind constants; any other accuses no member
		Step    int64
		Phase   string
		Detail  string
		Paused  bool // the reporter itself was paused: its accusation is void
	}
	// Unfollowed says that the stream from a member ended by itself.
	Unfollowed struct{ Member string }
	// Probed is the result of a probe that the policy asked for.
	Probed struct {
		Member  string
		Outcome Outcome
	}
	// Unpublished says that a Publish or AdoptNumerics failed or may have failed; the policy decides again.
	Unpublished struct{}
	// Durable says that a checkpoint of this step is on disk.
	Durable struct{ Step int64 }
	// Halt asks to stop after the current step and hold the state.
	Halt struct{}
	// Tick says that time has passed.
	Tick struct{}
)

// Kinds of accusation that the policy distinguishes.
const (
	KindBroken      = "broken"      // the stream to the suspect broke
	KindProtocol    = "protocol"    // the suspect broke the protocol
	KindUnreachable = "unreachable" // no stream to or from the suspect opened
	KindDeadline    = "deadline"    // the suspect's stream is open, but was silent for too long
	KindFetch       = "fetch"       // the reporter could not fetch a state, from the suspect or ("") the coordinator
	KindOther       = "other"       // the reporter failed, through no peer's fault
	// KindWaiting accuses no member: its collective is not over, but takes longer than Deadlines.Suspect, so the policy
	// probes the others.
	KindWaiting = "waiting"
)

// Actions that the policy asks the controller for.
type (
	Publish       struct{ World job.World }
	Probe         struct{ Member, Address string }
	AdoptNumerics struct{ Value, Parts string }
	Note          struct{ Text string }
	// Fail ends the job, for good.
	Fail struct{ Failure string }
)

// Policy decides the worlds of a job; the same inputs give the same actions. At most one Publish or AdoptNumerics is in
// progress, until its result is Observed or Unpublished.
type Policy struct {
	limits  Limits
	job     string    // UUID
	now     time.Time // of the present input
	address string    // of the coordinator that publishes

	members     []job.Member
	world       *job.World
	numerics    string
	durableStep int64
	halting     bool
	known       map[string]*standing // by member, registered or in the world
	places      map[string]int       // in members, by id: every report asks for every member
	ranks       map[string]int       // in world
	fresh       map[string]bool      // likewise: those that its record calls fresh
	away        []job.Peer           // likewise, those that are away
	doubted     []job.Peer           // likewise, those in doubt

	since        time.Time // since when enough members are ready, before this term's first world; zero: too few are
	found        int64     // the generation at the beginning of this term; 0: none
	opened       int64     // the newest generation in which most members committed or held
	agreed       int64     // the newest generation whose members agreed on one state
	pending      int64     // generation being published; 0: none
	adopting     bool
	arbitration  *arbitration               // of the present generation's failure
	links        map[pair]*link             // of members that could not reach each other
	own          map[string]ownFault        // by member
	step         int64                      // that most of a world had committed, when that was last asked
	proving      bool                       // a member or a link has something to prove
	fetches      map[string]map[string]bool // by suspect ("": the coordinator): which members could not fetch from it
	failure      string                     // the job's; no world is published any more
	voids        int                        // failures in a row that only paused members reported
	unopened     int                        // worlds in a row that did not open
	published    time.Time                  // when the last world was published
	observed     time.Time                  // when the present world was first seen
	waitingSince time.Time                  // since when a forced world waits for reports; zero: none waits
	dismissed    map[string]string          // by registered member: why it must end
	noted        string
}

// New returns the policy of one term. durableStep is the newest durable step.
func New(uuid, address string, durableStep int64, limits Limits) *Policy {
	limits.Max = max(1, limits.Max)
	limits.Min = min(max(1, limits.Min), limits.Max)
	limits.Expect = min(limits.Expect, limits.Max)
	return &Policy{job: uuid, address: address, durableStep: durableStep, limits: limits, known: map[string]*standing{},
		links: map[pair]*link{}, own: map[string]ownFault{}, fetches: map[string]map[string]bool{},
		dismissed: map[string]string{}}
}

// Step takes one input and returns the actions to carry out. now is a monotonic time.
func (p *Policy) Step(now time.Time, input any) []any {
	var out []any
	p.now = now
	switch in := input.(type) {
	case Observed:
		out = p.observe(now, in)
	case Report:
		out = p.report(now, in)
	case Unfollowed:
		p.standing(in.Member).cutOff = true
		out = p.probe(now, in.Member)
	case Probed:
		p.probed(now, in)
	case Unpublished:
		p.pending, p.adopting = 0, false
	case Durable:
		p.durableStep = max(p.durableStep, in.Step)
	case Halt:
		p.halting = true
	case Tick:
		out = p.tick(now)
	}
	p.open()
	return append(out, p.decide(now)...)
}

func (p *Policy) observe(now time.Time, in Observed) []any {
	p.members, p.places = in.Members, make(map[string]int, len(in.Members))
	for i, m := range in.Members {
		p.places[m.ID] = i
	}
	if in.Numerics != "" {
		p.numerics, p.adopting = in.Numerics, false
	}
	if w := in.World; w != nil && (p.world == nil || w.Generation > p.world.Generation) {
		if p.world == nil && p.pending == 0 {
			p.found = w.Generation
		}
		fresh, away, doubted := w.Fresh, w.Away, w.Doubted
		if p.world != nil && p.agreed == p.world.Generation && w.Generation == p.agreed+1 {
			// it may have been decided before that was known: the members of the world before have the state
			if had := p.holders().stayed; len(had) > 0 {
				fresh, away, doubted = job.World{Peers: without(w.Peers, had)}.IDs(), without(had, w.Peers), nil
			}
		}
		was := p.ranks
		p.away, p.doubted = away, doubted
		p.waitingSince = time.Time{} // a later failure waits for reports, too
		p.world, p.observed, p.arbitration, p.ranks = w, now, nil, make(map[string]int, w.Size())
		for rank, peer := range w.Peers {
			p.ranks[peer.ID] = rank
			if _, stays := was[peer.ID]; !stays { // what is committed without it proves nothing
				p.standing(peer.ID).tally = tally{p.step, now}
				for ids, l := range p.links {
					if ids.a == peer.ID || ids.b == peer.ID {
						l.tally = tally{p.step, now}
					}
				}
			}
		}
		p.fresh = make(map[string]bool, len(fresh))
		for _, id := range fresh {
			p.fresh[id] = true
		}
		for _, m := range in.Members { // dismissed by an earlier term
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
			out = append(out, p.probe(now, peer.ID)...) // a dead process's host refuses at once
		}
	}
	for _, report := range in.Reports {
		out = append(out, p.report(now, report)...)
	}
	return out
}

// forget drops the standing of members that are neither registered nor in the world.
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
	maps.DeleteFunc(p.links, func(ids pair, _ *link) bool { return known[ids.a] == nil || known[ids.b] == nil })
	maps.DeleteFunc(p.own, func(id string, _ ownFault) bool { return known[id] == nil })
}

func (p *Policy) report(now time.Time, in Report) (out []any) {
	s := p.standing(in.Member)
	if s.suspect {
		out = p.probe(now, in.Member) // it reports again: it may be back
	}
	before := s.report
	reborn := in.Generation < before.Generation || in.Generation == before.Generation && before.Member != "" &&
		in.Step < 0 && before.Step >= 0
	if before.Generation == in.Generation && !reborn {
		in.Committed = in.Committed || before.Committed
	}
	if in.Agreed || in.Committed || in.Holding {
		s.agreed = max(s.agreed, in.Generation)
	}
	if s.report, s.reached, s.cutOff = in, true, false; reborn {
		s.reborn, s.rebornIn = true, p.pending
		if p.world != nil {
			s.rebornIn = max(p.pending, p.world.Generation)
		}
	}
	if p.waits(in.Member) {
		out = append(out, p.probeAll(now)...)
	}
	return out
}

// decide compares the present world with the one that the facts ask for.
func (p *Policy) decide(now time.Time) []any {
	switch {
	case p.failure != "" && p.arbitration == nil, p.pending != 0, p.adopting:
		return nil
	case p.numerics == "":
		return p.adopt(now)
	case p.Abandoned():
		return p.gather(now)
	case slices.ContainsFunc(p.peers(), func(peer job.Peer) bool { return !p.present(peer) }):
		return p.publish(now, p.losses(), true, false)
	case slices.ContainsFunc(p.peers(), p.reportsFailure):
		return p.arbitrate(now)
	case p.opened == p.world.Generation:
		return p.publishPlanned(now)
	}
	return nil // members are entering this world
}

// able are the registered members that speak this coordinator's protocol.
func (p *Policy) able() []job.Member {
	return slices.DeleteFunc(slices.Clone(p.members), func(m job.Member) bool { return m.Speaks() != nil })
}

// adopt makes the numerics of most members that can train the job's, once those that are expected have come, or had the
// time: one that computes otherwise, and came first, does not decide for the others.
func (p *Policy) adopt(now time.Time) []any {
	able := p.able()
	wait, out := p.expect(now, len(able))
	switch {
	case len(able) == 0:
		return nil
	case wait:
		return out
	}
	votes, most := map[string]int{}, 0
	for _, m := range able {
		votes[m.Numerics]++
		most = max(most, votes[m.Numerics])
	}
	i := slices.IndexFunc(able, func(m job.Member) bool { return votes[m.Numerics] == most })
	p.adopting = true
	return []any{AdoptNumerics{able[i].Numerics, able[i].NumericsParts}}
}

// Abandoned reports whether no world has members: none is published or being published, or all its members are gone.
// Then only the disk has the state. (Members may train in a world before its publisher has read it back.)
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
	i, ok := p.places[id]
	if !ok {
		return job.Member{}, false
	}
	return p.members[i], true
}

// rank returns a member's rank in the present world, or -1.
func (p *Policy) rank(id string) int {
	if rank, ok := p.ranks[id]; ok {
		return rank
	}
	return -1
}

// note emits a Note when its text changes.
func (p *Policy) note(text string) []any {
	if text == p.noted {
		return nil
	}
	p.noted = text
	return []any{Note{text}}
}
