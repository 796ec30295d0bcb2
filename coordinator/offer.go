package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"evenweave/internal/progress"
)

// next is the state to save now, its hash, and a member that has it: the oldest on offer, if it is newer than the
// durable one and needs no wait.
func (s *saver) next(now time.Time) (member string, step int64, hash string, ok bool) {
	if s.busy || now.Before(s.after) {
		return "", 0, "", false
	}
	member, step, hash, ok = s.offer(now)
	switch {
	case !ok:
		return "", 0, "", false
	case step > s.nextDue() && s.early(now):
		// a holder of an older one may report later
		return "", 0, "", false
	case s.steps.awaits(step, now, reportWait):
		// a run that goes on from this state does not ask for those steps again
		return "", 0, "", false
	}
	return member, step, hash, true
}

// early reports whether this term has just begun, and not all members have reported.
func (s *saver) early(now time.Time) bool {
	return now.Sub(s.began) < reportWait && len(s.members.statuses) < len(s.members.followers)
}

// nextDue is the first step after the durable one whose state must be kept.
func (s *saver) nextDue() int64 {
	j := s.members.job()
	durable, next := s.durable.Manifest.Step, j.Spec.TotalSteps()
	for _, every := range []int64{j.Spec.Plan().StepsPerEpoch(), j.CheckpointEvery} {
		if every > 0 {
			next = min(next, (durable/every+1)*every)
		}
	}
	return next
}

// lostEpochs counts the epochs' ends between the durable step and one that is saved next.
func (s *saver) lostEpochs(saved int64) int64 {
	epoch := s.members.job().Spec.Plan().StepsPerEpoch()
	return max(0, (saved-1)/epoch-s.durable.Manifest.Step/epoch)
}

// claims lists the states that are newer than the durable one and may become so: due ones within the schedule, and what
// is held at its end or under a halt. A member outside the present world may only bring a state that its world had
// agreed on.
func (s *saver) claims() []claim {
	var all []claim
	w, _ := s.members.proofs.present()
	j, durable := s.members.job(), s.durable.Manifest.Step
	total := j.Spec.TotalSteps()
	for id, of := range s.members.statuses {
		address := s.members.followers[id].address
		for _, h := range of.Due {
			if h.Step > durable && h.Step <= total && j.Due(h.Step) {
				all = append(all, claim{id, address, h})
			}
		}
		if h := of.Held; of.Holding && h.Step > durable && h.Step <= total && of.Generation == w.Generation &&
			h.Generation == w.Generation && (w.Halt || h.Step == total) {
			all = append(all, claim{id, address, h})
		}
	}
	slices.SortFunc(all, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.held.Step, b.held.Step), cmp.Compare(a.member, b.member))
	})
	return all
}

// offer is the oldest proved step beyond the durable one, its hash, and a member that has it. There is none while an
// older one may still be proved.
func (s *saver) offer(now time.Time) (member string, step int64, hash string, ok bool) {
	claims := s.claims()
	s.members.proofs.count(claims)
	committed, gone := s.members.committed(now), !s.gone.IsZero()
	for _, c := range claims { // all wait at the same time, not one after the other
		if step := c.held.Step; step <= committed && s.members.proofs.offered[step].IsZero() {
			s.members.proofs.offered[step] = now
		}
	}
	for len(claims) > 0 {
		step := claims[0].held.Step
		n := slices.IndexFunc(claims, func(c claim) bool { return c.held.Step != step })
		if n < 0 {
			n = len(claims)
		}
		of := claims[:n]
		claims = claims[n:]
		known, proved := s.members.proofs.agreed[step]
		hash := known.hash
		if !proved {
			if step > committed && !gone { // only a minority has reached it
				continue
			}
			if now.Sub(s.members.proofs.offered[step]) < reportWait || gone && s.members.proofs.waiting(now) {
				return "", 0, "", false
			}
			if hash, proved = s.members.proofs.alone(of, s.members.reports, committed, gone, now); proved {
				s.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: the world that agreed on step %d is "+
					"gone before a majority of it reported; all that hold its state agree", step)})
				s.members.proofs.agreed[step] = agreement{hash: hash}
			}
		}
		if member, found := s.holder(of, hash); proved && found {
			return member, step, hash, true
		}
		s.passOver(of, proved)
	}
	return "", 0, "", false
}

// holder is the member to ask for a state: one that failed before only if there is no other, and none that gave another
// one.
func (s *saver) holder(of []claim, hash string) (member string, ok bool) {
	for _, c := range of {
		if string(c.held.Sha256) != hash || s.forged[c.member] {
			continue
		}
		if !ok || s.avoid[c.member].Before(s.avoid[member]) {
			member, ok = c.member, true
		}
	}
	return member, ok
}

// passOver warns of a due step that is not saved because no report of it is proved.
func (s *saver) passOver(of []claim, proved bool) {
	step, target := of[0].held.Step, ""
	if s.doubted[step] || len(s.doubted) >= maxFollowers {
		return
	}
	s.doubted[step] = true
	for _, c := range of[:min(len(of), 8)] {
		target += " " + c.member
	}
	why := "no majority reports its hash"
	if proved {
		why = "the members that offer it have another state than the world agreed on"
	}
	s.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: step %d is offered by%s and not taken: %s",
		step, target, why)})
}
