package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"evenweave/internal/job"
)

const (
	// maxFaults in a row quarantine a member that answers. That many members with an own fault at one step end the job.
	maxFaults = 3
	// maxQuarantines for that, without proof between them, end a member.
	maxQuarantines = 6
	// maxCharges without proof between them quarantine a member, or separate two, although their worlds open: each of
	// them breaks soon.
	maxCharges = 8
	// provenSteps of most, or provenTime, without another prove a member or a link.
	provenSteps = 100
	provenTime  = 15 * time.Minute
	// maxVoid failures in a row that only paused members report double the deadlines.
	maxVoid = 3
	// maxUnopened worlds in a row that do not open are published at once; later ones wait for a pause that doubles.
	maxUnopened   = 3
	unopenedPause = 100 * time.Millisecond
	unopenedMost  = 10 * time.Second
	// enterWithin is how long a member may take to enter a world before it is named.
	enterWithin = 30 * time.Second
)

// ownFault counts the errors of a member at one step that were no peer's fault. A commit ends the count.
type ownFault struct {
	step  int64
	times int
}

// ownFault counts an error. If it is the job's fault, because maxFaults members had it, or all of this world that
// often, it returns the error that ends the job.
func (p *Policy) ownFault(id string, a *Accusation) (verdict string) {
	f := p.own[id]
	if f.step != a.Step {
		f = ownFault{step: a.Step}
	}
	f.times, p.proving = f.times+1, true
	p.own[id] = f
	var members []string
	for other, f := range p.own {
		if f.step == a.Step {
			members = append(members, other)
		}
	}
	if len(members) < maxFaults && slices.ContainsFunc(p.peers(), func(peer job.Peer) bool {
		f := p.own[peer.ID]
		return f.step != a.Step || f.times < maxFaults
	}) {
		return ""
	}
	slices.Sort(members)
	return fmt.Sprintf("step %d fails on every member that tries it (%s), so it is the job's fault and not a "+
		"machine's: %s", a.Step+1, strings.Join(members, ", "), job.Clean(a.Detail))
}

// unfetched counts a failed fetch and returns the member to blame: the reporter, unless another member could not fetch
// from the suspect either.
func (p *Policy) unfetched(reporter, suspect string) (culprit string) {
	if p.fetches[suspect] == nil {
		p.fetches[suspect] = map[string]bool{}
	}
	p.fetches[suspect][reporter] = true
	if suspect != "" && len(p.fetches[suspect]) > 1 {
		return suspect
	}
	return reporter
}

// dismiss ends a member: the next world records name it while it is registered.
func (p *Policy) dismiss(id, why string) {
	p.dismissed[id] = fmt.Sprintf("%s was left out %d times and still cannot keep up: %s", id, maxQuarantines, why)
}

// pause is how long a world must wait after the last if the worlds before it never opened.
func (p *Policy) pause() time.Duration {
	if p.unopened < maxUnopened {
		return 0
	}
	return min(unopenedPause<<min(p.unopened-maxUnopened, 10), unopenedMost)
}

// hung names a member that answers probes and never leaves its step: a person must end its process.
func (p *Policy) hung(now time.Time, id string) []any {
	s := p.standing(id)
	if s.report.Resting || s.report.CatchingUp || !s.reached || s.report.Member == "" {
		s.unrested = time.Time{}
		return nil
	}
	if s.unrested.IsZero() {
		s.unrested = now
	}
	if s.stuck || now.Sub(s.unrested) <= 2*p.limits.TTL {
		return nil
	}
	s.stuck = true
	return []any{Note{fmt.Sprintf("%s answers, but hangs in generation %d, so it is not used: end its process",
		id, s.report.Generation)}}
}

// missing names members that have not entered the present world long after it was published: the policy waits for them.
func (p *Policy) missing(now time.Time) []any {
	if p.world == nil || p.opened == p.world.Generation || now.Sub(p.observed) < enterWithin {
		return nil
	}
	var ids []string
	for _, peer := range p.world.Peers {
		if p.present(peer) && p.standing(peer.ID).report.Generation < p.world.Generation {
			ids = append(ids, peer.ID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return p.note(fmt.Sprintf("world %d waits for %s: in a long step, or out of reach of etcd, of the other members "+
		"or of this coordinator", p.world.Generation, strings.Join(ids, ", ")))
}

// Rests reports whether a member in this phase is free to enter a world.
func Rests(phase string) bool {
	return phase == PhaseSpare || phase == PhaseWaiting || phase == PhaseHolding
}

// Phases of a member that is in no world, as it reports them. In all but the last it rests.
const (
	PhaseSpare   = "spare"
	PhaseWaiting = "waiting for a new world"
	PhaseHolding = "holding"
	// PhaseCatchUp is that of a spare that fetches the state before a world uses it.
	PhaseCatchUp = "catching up"
)
