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
	keptCommits = 4096 // told to a coordinator that comes back
	pageCommits = 256  // told in one message
	keptEvents  = 512  // told to `evenweave blame`
)

// report is what this member tells about itself. Level-based: readers always get all that holds now. Safe for concurrent use.
type report struct {
	mu      sync.Mutex
	status  *proto.Status
	commits []*proto.Commit
	events  []*proto.BlameEvent
	changed chan struct{}

	telling sync.Mutex // so that of two who tell of due states the later one has the last word

	moved   time.Time     // when the member last got on
	allowed time.Duration // how long that may be ago; 0: any time
}

func newReport(member, job string) *report {
	return &report{
		status:  &proto.Status{Member: member, Job: job, Step: -1, Phase: phaseSpare},
		changed: make(chan struct{}),
	}
}

// set changes the status and wakes who follows it.
func (r *report) set(change func(*proto.Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.status)
	close(r.changed)
	r.changed = make(chan struct{})
}

// due tells which due states are held now.
func (r *report) due(held func() []*proto.HeldState) {
	r.telling.Lock()
	defer r.telling.Unlock()
	due := held()
	r.set(func(s *proto.Status) { s.Due = due })
}

// phase is set several times a step and wakes nobody: the next change carries it.
func (r *report) phase(p string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Phase = p
}

// commit records a committed step and the ledger after it; a step done again replaces what followed it. It wakes nobody: followers look
// every pace, so that short steps cost no message each.
func (r *report) commit(c *proto.Commit, ledger *proto.Ledger) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n := len(r.commits); n > 0 && r.commits[n-1].Step >= c.Step; n-- {
		r.commits = r.commits[:n-1]
	}
	if len(r.commits) == keptCommits {
		r.commits = append(r.commits[:0], r.commits[keptCommits/4:]...)
	}
	r.moved = time.Now()
	r.commits = append(r.commits, c)
	r.status.Step, r.status.Ledger, r.status.Opened = c.Step, ledger, c.Generation
}

// event notes something for `evenweave blame`.
func (r *report) event(what, detail string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == keptEvents {
		r.events = append(r.events[:0], r.events[keptEvents/4:]...)
	}
	r.events = append(r.events, &proto.BlameEvent{
		TimeNanos: time.Now().UnixNano(), Member: r.status.Member, Generation: r.status.Generation, Step: r.status.Step, What: what, Detail: detail,
	})
}

func (r *report) blame() []*proto.BlameEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*proto.BlameEvent(nil), r.events...)
}

// read returns the status with the oldest commits after a step, a page of them at most, and a channel that is closed, and another from then on, when set changes the status.
func (r *report) read(afterStep int64) (*proto.Status, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &proto.Status{
		Member: r.status.Member, Job: r.status.Job, Generation: r.status.Generation, Step: r.status.Step, Phase: r.status.Phase,
		Accusation: r.status.Accusation, Due: r.status.Due, Holding: r.status.Holding, Held: r.status.Held, Fingerprint: r.status.Fingerprint,
		Verdict: r.status.Verdict, Ledger: r.status.Ledger, Heals: r.status.Heals, Heal: r.status.Heal,
		Opened: r.status.Opened,
	}
	first := len(r.commits)
	for first > 0 && r.commits[first-1].Step > afterStep {
		first--
	}
	s.Commits = slices.Clone(r.commits[first:min(first+pageCommits, len(r.commits))])
	return s, r.changed
}
