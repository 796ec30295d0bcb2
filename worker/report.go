package worker

import (
	"slices"
	"sync"
	"time"

	"evenweave/internal/policy"
	"evenweave/proto"
)

// Phases of a member, as reported.
const (
	phaseSpare    = policy.PhaseSpare
	phaseCatchUp  = policy.PhaseCatchUp
	phaseConnect  = "connect"
	phaseOpen     = "open"
	phaseFetch    = "fetch"
	phaseCompute  = "compute"
	phaseReduce   = "reduce"
	phaseUpdate   = "update"
	phaseWaiting  = policy.PhaseWaiting
	phaseHolding  = policy.PhaseHolding
	phaseFinished = "finished"
)

const (
	keptCommits = 4096 // for a coordinator that restarts
	pageCommits = 256  // in one message,
	pageBytes   = 96 << 10
	keptEvents  = 512 // for `evenweave blame`
)

// report is this member's status. Readers always get the whole status. It is safe for concurrent use.
type report struct {
	mu      sync.Mutex
	status  *proto.Status
	commits []*proto.Commit
	events  []*proto.BlameEvent
	changed chan struct{}

	dueMu sync.Mutex // so that of two concurrent reports of due states the later one is kept

	size int // of the world: all its members report the same commits

	moved   time.Time     // when the member last made progress
	allowed time.Duration // how long ago that may be; 0: any time
}

func newReport(member, job string) *report {
	return &report{
		status:  &proto.Status{Member: member, Job: job, Step: -1, Phase: phaseSpare},
		changed: make(chan struct{}),
	}
}

// set changes the status and wakes its followers.
func (r *report) set(change func(*proto.Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.status)
	close(r.changed)
	r.changed = make(chan struct{})
}

// note changes the status and wakes no follower: the next change carries it.
func (r *report) note(change func(*proto.Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.status)
}

// due reports the due states that the member holds now.
func (r *report) due(held func() []*proto.HeldState) { r.hold(held, r.set) }

// acknowledged reports the due states that are left. The coordinator knows what it acknowledged.
func (r *report) acknowledged(held func() []*proto.HeldState) { r.hold(held, r.note) }

func (r *report) hold(held func() []*proto.HeldState, change func(func(*proto.Status))) {
	r.dueMu.Lock()
	defer r.dueMu.Unlock()
	due := held()
	change(func(s *proto.Status) { s.Due = due })
}

// phase changes several times a step.
func (r *report) phase(p string) { r.note(func(s *proto.Status) { s.Phase = p }) }

// among records the size of the world that this member is in.
func (r *report) among(size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.size = size
}

// pace is the time between two messages that hold only commits.
func (r *report) pace() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return min(shortestPace*time.Duration(max(r.size, fewMembers))/fewMembers, signOfLife)
}

// commit records a committed step and the ledger after it; a repeated step replaces all later ones. It wakes no
// follower: they look every pace, so that a short step costs no message.
func (r *report) commit(c *proto.Commit, ledger *proto.Ledger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := len(r.commits); n > 0 && r.commits[n-1].Step >= c.Step; n-- {
		r.commits = r.commits[:n-1]
	}
	if len(r.commits) == keptCommits {
		r.commits = append(r.commits[:0], r.commits[keptCommits/4:]...)
	}
	r.commits = append(r.commits, c)
	r.status.Step, r.status.Ledger, r.status.Opened = c.Step, ledger, c.Generation
}

// event records an event for `evenweave blame`.
func (r *report) event(what, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == keptEvents {
		r.events = append(r.events[:0], r.events[keptEvents/4:]...)
	}
	r.events = append(r.events, &proto.BlameEvent{
		TimeNanos: time.Now().UnixNano(), Member: r.status.Member, Generation: r.status.Generation, Step: r.status.Step,
		What: what, Detail: detail,
	})
}

func (r *report) blame() []*proto.BlameEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// mostBytes bounds the size of a commit in a message: each of its numbers takes 11 bytes at most, a share of the
// assignment 5.
func mostBytes(c *proto.Commit) int {
	return 16*11 + 5*len(c.Assignment) + 8*len(c.Metrics) + len(c.Skipped)
}

// read returns the status with the oldest commits after a step, at most a page of them, and a channel that is closed at
// the next change by set.
func (r *report) read(afterStep int64) (*proto.Status, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &proto.Status{
		Member: r.status.Member, Job: r.status.Job, Generation: r.status.Generation, Step: r.status.Step,
		Phase:      r.status.Phase,
		Accusation: r.status.Accusation, Due: r.status.Due, Holding: r.status.Holding, Held: r.status.Held,
		Fingerprint: r.status.Fingerprint,
		Verdict:     r.status.Verdict, Ledger: r.status.Ledger, Heals: r.status.Heals, Heal: r.status.Heal,
		Opened: r.status.Opened, Agreed: r.status.Agreed,
	}
	first := len(r.commits)
	for first > 0 && r.commits[first-1].Step > afterStep {
		first--
	}
	size := 0
	for _, c := range r.commits[first:min(first+pageCommits, len(r.commits))] {
		if size += mostBytes(c); size > pageBytes && len(s.Commits) > 0 {
			break
		}
		s.Commits = append(s.Commits, c)
	}
	return s, r.changed
}
