package coordinator

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"evenweave/job"
)

// Limits bound the worlds that the policy publishes.
type Limits struct {
	Min    int // no world has fewer members
	Max    int // nor more; never above the number of micro-batches, which every rank needs one of
	Expect int // the first world waits ExpectFor for this many
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

// Inputs of the policy. Each is a fact that the controller saw; none is a command but Halt.
type (
	// Observed is what etcd holds now.
	Observed struct {
		Members  []job.Member
		World    *job.World
		Numerics string
	}
	// Told is a member's status.
	Told struct {
		Member     string
		Generation int64
		Committed  bool // a step of that generation, or more
		Holding    bool // it serves a verified state, computing nothing
		Step       int64
		Accusation *Accusation
	}
	// Accusation is one edge of the wait-for graph, told by who waited.
	Accusation struct {
		Suspect string
		Kind    string // "broken", "deadline", "protocol", "relayed", ...
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
	// Unpublished says that publishing failed; the policy decides anew.
	Unpublished struct{}
	// Durable says that a checkpoint of this step is on disk.
	Durable struct{ Step int64 }
	// Halt asks to stop after the current step and hold the state.
	Halt struct{}
	// Tick says that time has passed.
	Tick struct{}
)

// Actions that the policy asks the controller for.
type (
	Publish       struct{ World job.World }
	Probe         struct{ Member, Address string }
	AdoptNumerics struct{ Value string }
	Note          struct{ Text string }
)

// Policy decides the worlds of a job. Pure: it starts no goroutine, reads no clock and does no I/O; the same inputs give the same actions.
type Policy struct {
	limits  Limits
	job     string // UUID
	address string // of the coordinator that publishes

	members  []job.Member
	world    *job.World
	numerics string
	floor    int64
	halting  bool

	since    time.Time // when the policy first saw a member while there was no world
	opened   int64     // the newest generation in which a member committed or held
	pending  int64     // generation being published; 0: none
	status   map[string]Told
	evidence map[string]Accusation // by reporter, of the current generation
	inquest  map[string]Outcome    // by member; 0: probe under way; nil: no inquest
	probing  map[string]bool
	suspects map[string]bool      // members that failed a probe: not used until one succeeds
	absent   map[string]time.Time // members of the world that are not registered
	benched  map[string]time.Time // members left out until then, because a peer cannot reach them or they hang
	strikes  map[[2]string]int    // failures between two members that are both alive
	hangs    map[string]int       // deadlines that pointed at a member that answers
	noted    string
}

// NewPolicy returns the policy of one term.
func NewPolicy(uuid, address string, floor int64, limits Limits) *Policy {
	return &Policy{
		job: uuid, address: address, floor: floor, limits: limits,
		status: map[string]Told{}, evidence: map[string]Accusation{}, probing: map[string]bool{}, suspects: map[string]bool{},
		absent: map[string]time.Time{}, benched: map[string]time.Time{}, strikes: map[[2]string]int{}, hangs: map[string]int{},
	}
}

// Step takes one input and returns what to do. now is a monotonic time that never runs backwards.
func (p *Policy) Step(now time.Time, input any) []any {
	var out []any
	switch in := input.(type) {
	case Observed:
		out = p.observe(now, in)
	case Told:
		p.tell(in)
	case Unfollowed:
		if p.inWorld(in.Member) {
			out = p.probe(in.Member)
		}
	case Probed:
		out = p.judge(in)
	case Unpublished:
		p.pending = 0
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
	p.numerics = in.Numerics
	if in.World != nil && (p.world == nil || in.World.Generation > p.world.Generation) {
		p.world = in.World
		p.evidence, p.inquest = map[string]Accusation{}, nil
		if p.world.Generation >= p.pending {
			p.pending = 0
		}
	}
	if p.since.IsZero() && len(in.Members) > 0 {
		p.since = now
	}
	if p.world != nil {
		for _, peer := range p.world.Peers {
			if _, ok := p.member(peer.ID); ok {
				delete(p.absent, peer.ID)
			} else if _, known := p.absent[peer.ID]; !known {
				p.absent[peer.ID] = now
			}
		}
	}
	if p.numerics == "" && len(in.Members) > 0 {
		p.numerics = in.Members[0].Numerics
		return []any{AdoptNumerics{p.numerics}}
	}
	return nil
}

func (p *Policy) tell(in Told) {
	p.status[in.Member] = in
	if p.world == nil || in.Generation != p.world.Generation {
		return // of another generation: void
	}
	if in.Committed || in.Holding {
		if in.Generation > p.opened {
			p.opened = in.Generation
			clear(p.hangs)
		}
	}
	if in.Accusation != nil && p.inWorld(in.Member) {
		p.evidence[in.Member] = *in.Accusation
	}
}

// tick re-examines what only time can change: absences, and whether suspects answer again.
func (p *Policy) tick(now time.Time) []any {
	var out []any
	if p.world != nil {
		for _, peer := range p.world.Peers {
			if t, ok := p.absent[peer.ID]; ok && now.Sub(t) > p.limits.TTL {
				out = append(out, p.probe(peer.ID)...)
			}
		}
	}
	for _, m := range p.members {
		if p.suspects[m.ID] {
			out = append(out, p.probe(m.ID)...)
		}
	}
	return out
}

func (p *Policy) probe(id string) []any {
	if p.probing[id] {
		return nil
	}
	p.probing[id] = true
	return []any{Probe{Member: id, Address: p.addressOf(id)}}
}

// judge takes a probe's result. Outside an inquest only a refused connection, or an absence, evicts: silence may be the coordinator's own.
func (p *Policy) judge(in Probed) []any {
	delete(p.probing, in.Member)
	if in.Outcome == Alive {
		delete(p.suspects, in.Member)
	} else if _, gone := p.absent[in.Member]; gone || in.Outcome == Refused || !p.inWorld(in.Member) {
		p.suspects[in.Member] = true
	}
	if p.inquest != nil {
		if _, asked := p.inquest[in.Member]; asked {
			p.inquest[in.Member] = in.Outcome
		}
	}
	return nil
}

// decide compares the world with what the facts ask for.
func (p *Policy) decide(now time.Time) []any {
	if p.pending != 0 || p.numerics == "" {
		return nil
	}
	if p.world == nil || len(p.world.Peers) == 0 {
		return p.gather(now)
	}
	for id := range p.suspects {
		if p.inWorld(id) && p.inquest == nil {
			return p.publish(now, p.verdict(now), true, 0)
		}
	}
	if len(p.evidence) > 0 {
		return p.inquire(now)
	}
	if p.opened == p.world.Generation {
		return p.publishPlanned(now)
	}
	return nil
}

// gather publishes a first world, or one after all members of the last are gone.
func (p *Policy) gather(now time.Time) []any {
	n := len(p.candidates(now))
	if n < max(1, p.limits.Min) {
		return p.note(fmt.Sprintf("waiting for workers: %d of at least %d are ready", n, max(1, p.limits.Min)))
	}
	if p.world == nil && n < p.limits.Expect && now.Sub(p.since) < p.limits.ExpectFor {
		return p.note(fmt.Sprintf("waiting for workers: %d of %d are ready", n, p.limits.Expect))
	}
	if p.halting {
		return nil
	}
	return p.publish(now, "workers are ready", true, 0)
}

// inquire probes all members of a world whose collective failed, and judges when all have answered or been silent.
func (p *Policy) inquire(now time.Time) []any {
	if p.inquest == nil {
		p.inquest = map[string]Outcome{}
		var out []any
		for _, peer := range p.world.Peers {
			p.inquest[peer.ID] = 0
			out = append(out, p.probe(peer.ID)...)
		}
		return out
	}
	silent := 0
	for _, o := range p.inquest {
		if o == 0 {
			return nil
		}
		if o == Silent {
			silent++
		}
	}
	if silent == len(p.inquest) { // they told of the failure, now none is heard: the fault may be on this side
		p.inquest = nil
		return nil // the next tick, or status, asks again
	}
	doublings := p.blame(now)
	reason := p.verdict(now)
	p.inquest = nil
	return p.publish(now, reason, true, doublings)
}

// blame draws the consequences of an inquest: who is a suspect, which pairs cannot see each other, whether deadlines were too short.
// It returns by how much to double the deadlines.
func (p *Policy) blame(now time.Time) (doublings int) {
	dead := false
	for id, o := range p.inquest {
		if o != Alive {
			p.suspects[id], dead = true, true
		}
	}
	if dead {
		return 0
	}
	for _, reporter := range sortedKeys(p.evidence) {
		a := p.evidence[reporter]
		if a.Paused || !p.inWorld(a.Suspect) {
			continue
		}
		if a.Kind == "deadline" {
			doublings = 1
		} else if a.Kind == "broken" || a.Kind == "protocol" {
			pair := [2]string{min(reporter, a.Suspect), max(reporter, a.Suspect)}
			p.strikes[pair]++
		}
	}
	// The sink of the wait-for graph: waited for, waiting for nobody.
	if doublings > 0 {
		for _, reporter := range sortedKeys(p.evidence) {
			suspect := p.evidence[reporter].Suspect
			if _, waits := p.evidence[suspect]; !waits && p.inWorld(suspect) {
				if p.hangs[suspect]++; p.hangs[suspect] >= 3 {
					p.benched[suspect] = now.Add(time.Minute)
				}
			}
		}
	}
	return doublings
}

// verdict tells why the world ends, for people: every member logs it.
func (p *Policy) verdict(time.Time) string {
	var parts []string
	for _, peer := range p.world.Peers {
		rank := p.world.Rank(peer.ID)
		switch {
		case p.inquest[peer.ID] == Silent:
			parts = append(parts, fmt.Sprintf("%s (rank %d) does not answer", peer.ID, rank))
		case p.suspects[peer.ID]:
			parts = append(parts, fmt.Sprintf("%s (rank %d) is gone", peer.ID, rank))
		}
	}
	if len(parts) == 0 {
		for _, reporter := range sortedKeys(p.evidence) {
			a := p.evidence[reporter]
			if a.Suspect != "" {
				parts = append(parts, fmt.Sprintf("%s waited for %s (%s, %s) and both answer", reporter, a.Suspect, a.Kind, a.Phase))
			}
		}
	}
	if len(parts) == 0 {
		return "the collective failed"
	}
	return strings.Join(parts, "; ")
}

// publishPlanned publishes a world that members enter after their next commit, if the facts ask for another than the present one.
func (p *Policy) publishPlanned(now time.Time) []any {
	peers, halt := p.desired(now)
	if halt == p.world.Halt && slices.EqualFunc(peers, p.world.Peers, func(a, b job.Peer) bool { return a.ID == b.ID }) {
		return nil
	}
	if len(peers) < p.limits.Min && len(peers) > 0 && !halt {
		return p.note(fmt.Sprintf("a world of %d would be below --min-workers %d: keeping the present one", len(peers), p.limits.Min))
	}
	return p.publish(now, p.changes(peers, halt), false, 0)
}

func (p *Policy) changes(peers []job.Peer, halt bool) string {
	var parts []string
	for _, peer := range peers {
		if !p.inWorld(peer.ID) {
			parts = append(parts, peer.ID+" joins")
		}
	}
	for _, peer := range p.world.Peers {
		if !slices.ContainsFunc(peers, func(q job.Peer) bool { return q.ID == peer.ID }) {
			parts = append(parts, peer.ID+" leaves")
		}
	}
	if halt != p.world.Halt {
		if halt {
			parts = append(parts, "halting")
		} else {
			parts = append(parts, "going on")
		}
	}
	return strings.Join(parts, ", ")
}

// publish asks for the next world. forced: members stop at once, their step is lost; otherwise they finish it first.
func (p *Policy) publish(now time.Time, reason string, forced bool, doublings int) []any {
	peers, halt := p.desired(now)
	if len(peers) < max(1, p.limits.Min) && (len(peers) > 0 || forced) && !halt {
		return p.note(fmt.Sprintf("%s; waiting for workers: %d of at least %d are ready", reason, len(peers), max(1, p.limits.Min)))
	}
	w := job.World{Job: p.job, Generation: 1, Peers: peers, Since: 1, Floor: p.floor, Coordinator: p.address, Halt: halt, Reason: reason}
	if p.world != nil {
		w.Generation = p.world.Generation + 1
		w.Since = w.Generation
		if !forced {
			w.Since = p.world.Generation
		}
		if doublings > 0 {
			w.Patience = min(p.world.Patience+doublings, 6)
		} else if p.world.Patience > 0 && p.opened < p.world.Generation {
			w.Patience = p.world.Patience
		}
	}
	p.pending = w.Generation
	p.noted = ""
	return []any{Publish{w}}
}

// desired is the world that the facts ask for: who is in it stays, in order, unless judged or leaving; ready members fill the room.
func (p *Policy) desired(now time.Time) (peers []job.Peer, halt bool) {
	candidates := p.candidates(now)
	var leaving []job.Peer
	if p.world != nil {
		for _, peer := range p.world.Peers {
			m, registered := p.member(peer.ID)
			switch {
			case p.suspects[peer.ID] || now.Before(p.benched[peer.ID]):
			case registered && m.Leaving:
				leaving = append(leaving, peer)
			default: // also a member whose registration is missing: leases admit, they do not evict
				peers = append(peers, peer)
			}
		}
	}
	room := p.limits.Max
	for _, m := range candidates {
		if len(peers) < room && !slices.ContainsFunc(peers, func(q job.Peer) bool { return q.ID == m.ID }) {
			peers = append(peers, job.Peer{ID: m.ID, Address: m.Address})
		}
	}
	if len(peers) == 0 && len(leaving) > 0 && !p.saved(leaving) {
		return leaving, true // the last ones to leave hold the state until it is on disk
	}
	return p.reorder(now, peers), p.halting
}

// saved says whether what these members hold is durable.
func (p *Policy) saved(peers []job.Peer) bool {
	for _, peer := range peers {
		s, ok := p.status[peer.ID]
		if !ok || !s.Holding || s.Generation != p.world.Generation || s.Step > p.floor {
			return false
		}
	}
	return true
}

// candidates are the registered members that may be used, oldest first.
func (p *Policy) candidates(now time.Time) []job.Member {
	var out []job.Member
	for _, m := range p.members {
		if !m.Leaving && !p.suspects[m.ID] && !now.Before(p.benched[m.ID]) && m.Numerics == p.numerics {
			out = append(out, m)
		}
	}
	return out
}

// reorder keeps pairs that cannot reach each other from being neighbours. Where no order does, the youngest of the pair is benched
// for a while; longer each time, so that the two do not evict each other for ever.
func (p *Policy) reorder(now time.Time, peers []job.Peer) []job.Peer {
	bad := func(a, b job.Peer) int { return p.strikes[[2]string{min(a.ID, b.ID), max(a.ID, b.ID)}] }
	for {
		at := -1
		for i := range peers {
			if len(peers) > 1 && bad(peers[i], peers[(i+1)%len(peers)]) >= 2 {
				at = (i + 1) % len(peers)
			}
		}
		if at < 0 {
			return peers
		}
		if better := rearrange(peers, bad); better != nil {
			return better
		}
		out := max(at, (at+len(peers)-1)%len(peers))
		worst := bad(peers[at], peers[(at+len(peers)-1)%len(peers)])
		p.benched[peers[out].ID] = now.Add(min(5*time.Second<<min(worst, 8), 10*time.Minute))
		peers = slices.Delete(slices.Clone(peers), out, out+1)
	}
}

// rearrange looks for a ring without a bad pair by inserting each member where it has no bad neighbour; nil when that finds none.
func rearrange(peers []job.Peer, bad func(a, b job.Peer) int) []job.Peer {
	var ring []job.Peer
	left := slices.Clone(peers)
	for range len(peers) * len(peers) {
		if len(left) == 0 {
			return ring
		}
		next := left[0]
		left = left[1:]
		placed := false
		for i := 0; i <= len(ring) && !placed; i++ {
			n := len(ring)
			if n == 0 || bad(ring[(i+n-1)%n], next) < 2 && bad(next, ring[i%n]) < 2 {
				ring, placed = slices.Insert(ring, i, next), true
			}
		}
		if !placed {
			left = append(left, next)
		}
	}
	return nil
}

func (p *Policy) member(id string) (job.Member, bool) {
	i := slices.IndexFunc(p.members, func(m job.Member) bool { return m.ID == id })
	if i < 0 {
		return job.Member{}, false
	}
	return p.members[i], true
}

func (p *Policy) addressOf(id string) string {
	if m, ok := p.member(id); ok {
		return m.Address
	}
	if p.world != nil && p.world.Rank(id) >= 0 {
		return p.world.Peers[p.world.Rank(id)].Address
	}
	return ""
}

func (p *Policy) inWorld(id string) bool { return p.world != nil && p.world.Rank(id) >= 0 }

// note tells people something once, until it changes.
func (p *Policy) note(text string) []any {
	if text == p.noted {
		return nil
	}
	p.noted = text
	return []any{Note{text}}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
