package coordinator

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// wantedFollowers are the members to follow, with their addresses: those of the world, and the registered ones whose
// numerics are the job's. A process that came back under the id of a member of the world is newer than the world.
func wantedFollowers(view cluster.View) map[string]string {
	wanted := map[string]string{}
	if view.World != nil {
		for _, p := range view.World.Peers {
			wanted[p.ID] = p.Address
		}
	}
	for _, m := range view.Members {
		_, used := wanted[m.ID]
		if n := view.Job.Numerics; used || len(wanted) < maxFollowers && (n == "" || m.Numerics == n) {
			wanted[m.ID] = m.Address
		}
	}
	return wanted
}

// inWorld reports whether this follower follows the process that the present world means.
func (t *term) inWorld(member string) bool {
	w, ok := t.proofs.present()
	f, followed := t.followers[member]
	return ok && followed && slices.Contains(w.Peers, job.Peer{ID: member, Address: f.address})
}

// maxAhead members' commits are kept until their world is seen; one member suffices, because all report the same
// commits.
const maxAhead = 64

// witnessed are the commits that a member can report: all, if it is in the present world; otherwise those of an earlier
// world that it was in. Commits of a world that this term has not seen yet are kept until it has.
func (t *term) witnessed(member string, commits []*proto.Commit) []*proto.Commit {
	if t.inWorld(member) {
		return commits
	}
	var out, ahead []*proto.Commit
	present, _ := t.proofs.present()
	for _, c := range commits {
		switch {
		case t.proofs.used(c.Generation, member, t.followers[member].address):
			out = append(out, c)
		case c.Generation > present.Generation:
			ahead = append(ahead, c)
		}
	}
	if kept, known := t.ahead[member]; len(ahead) > 0 && len(kept)+len(ahead) <= maxCommits &&
		(known || len(t.ahead) < maxAhead) {
		t.ahead[member] = append(kept, ahead...)
	}
	return out
}

// catchUp reports what was kept until a world was seen.
func (t *term) catchUp() {
	kept := t.ahead
	t.ahead = map[string][]*proto.Commit{}
	for member, commits := range kept {
		t.reportSteps(reportWait, t.witnessed(member, commits)...)
	}
}

// peers are the statuses of the present world's members that report.
func (t *term) peers() []*proto.Status {
	var all []*proto.Status
	for id, s := range t.statuses {
		if t.inWorld(id) {
			all = append(all, s)
		}
	}
	return all
}

// unfollow drops the status of a member whose stream has ended.
func (t *term) unfollow(member string) {
	if t.inWorld(member) {
		t.proofs.silent[member] = time.Now()
	}
	delete(t.statuses, member)
}

// agree reports whether the members of the present world whose status satisfies says decide.
func (t *term) agree(says func(*proto.Status) bool) bool {
	peers, n := t.peers(), 0
	for _, s := range peers {
		if says(s) {
			n++
		}
	}
	return t.proofs.quorum(n, len(peers), time.Now())
}

// disbelieve names members whose verdict the others did not share: their world has gone on to the next.
func (t *term) disbelieve(next job.World) {
	if w, ok := t.proofs.present(); !ok || w.Generation >= next.Generation {
		return
	}
	for _, s := range t.peers() {
		if s.Verdict != "" {
			t.c.emit(progress.Warning{Message: fmt.Sprintf("%s says that the job has failed, and the others do not: %s",
				s.Member, s.Verdict)})
		}
	}
}

// claims lists the states that are newer than the durable one and may become so: due ones within the schedule, and what
// is held at its end or under a halt. A member outside the present world may only bring a state that its world had
// agreed on.
func (t *term) claims() []claim {
	var all []claim
	w, _ := t.proofs.present()
	durable, total := t.durable.Manifest.Step, t.job.Spec.TotalSteps()
	for id, s := range t.statuses {
		address := t.followers[id].address
		for _, h := range s.Due {
			if h.Step > durable && h.Step <= total && t.job.Due(h.Step) {
				all = append(all, claim{id, address, h})
			}
		}
		if h := s.Held; s.Holding && h.Step > durable && h.Step <= total && s.Generation == w.Generation &&
			h.Generation == w.Generation && (w.Halt || h.Step == total) {
			all = append(all, claim{id, address, h})
		}
	}
	slices.SortFunc(all, func(a, b claim) int {
		return cmp.Or(cmp.Compare(a.held.Step, b.held.Step), cmp.Compare(a.member, b.member))
	})
	return all
}

// offer is the oldest proved step beyond the durable one, its hash, and a member that has it. wait: an older one may
// still be proved.
func (t *term) offer(now time.Time) (member string, step int64, hash string, ok bool) {
	claims := t.claims()
	t.proofs.count(claims)
	var steps []int64
	peers := t.peers()
	for _, s := range peers {
		steps = append(steps, s.Step)
	}
	committed := t.proofs.committed(steps, now)
	for _, c := range claims { // all wait at the same time, not one after the other
		if step := c.held.Step; step <= committed && t.proofs.offered[step].IsZero() {
			t.proofs.offered[step] = now
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
		hash, proved := t.proofs.agreed[step]
		if !proved {
			if step > committed { // only a minority has reached it
				continue
			}
			if now.Sub(t.proofs.offered[step]) < reportWait {
				return "", 0, "", false
			}
			if hash, proved = t.proofs.alone(of, len(peers), committed, now); proved {
				t.c.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: the world that agreed on step %d is "+
					"gone before a majority of it reported; all that hold its state agree", step)})
				t.proofs.agreed[step] = hash
			}
		}
		if member, found := t.holder(of, hash); proved && found {
			return member, step, hash, true
		}
		t.passOver(of, proved)
	}
	return "", 0, "", false
}

// holder is the member to ask for a state: one that failed before only if there is no other, and none that gave another
// one.
func (t *term) holder(of []claim, hash string) (member string, ok bool) {
	for _, c := range of {
		if string(c.held.Sha256) != hash || t.forged[c.member] {
			continue
		}
		if !ok || t.avoid[c.member].Before(t.avoid[member]) {
			member, ok = c.member, true
		}
	}
	return member, ok
}

// passOver warns of a due step that is not saved because no report of it is proved.
func (t *term) passOver(of []claim, proved bool) {
	step, target := of[0].held.Step, ""
	if t.doubted[step] || len(t.doubted) >= maxFollowers {
		return
	}
	t.doubted[step] = true
	for _, c := range of[:min(len(of), 8)] {
		target += " " + c.member
	}
	why := "no majority reports its hash"
	if proved {
		why = "the members that offer it have another state than the world agreed on"
	}
	t.c.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: step %d is offered by%s and not taken: %s",
		step, target, why)})
}
