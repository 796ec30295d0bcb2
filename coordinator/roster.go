package coordinator

import (
	"fmt"
	"slices"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// roster is what a term knows of the members: etcd's records, the reports of those that it follows, and the worlds that
// decide which reports count. It belongs to the term's loop. Nothing in it waits or does I/O.
type roster struct {
	view      cluster.View // its Job is never nil
	followers map[string]follower
	statuses  map[string]*proto.Status // by member
	proofs    *proofs
	ahead     map[string][]*proto.Commit // by member: of worlds that this term has not seen yet
	invalid   map[string]bool            // members that sent an impossible status; each is named once
	healed    map[string]int64           // heals reported, by member
	heals     int                        // in this term
	accused   map[string]int64           // by member: the generation of its accusation that was logged last
	events    emitter
}

func newRoster(view cluster.View, healed map[string]int64, events emitter) *roster {
	return &roster{
		view: view, followers: map[string]follower{}, statuses: map[string]*proto.Status{}, proofs: newProofs(),
		ahead: map[string][]*proto.Commit{}, invalid: map[string]bool{}, healed: healed,
		accused: map[string]int64{}, events: events,
	}
}

func (r *roster) job() *job.Job { return r.view.Job }

// observe takes a newer view. It returns the members that are followed no more.
func (r *roster) observe(view cluster.View, now time.Time) (dropped []string) {
	r.view = view
	if view.World != nil {
		r.disbelieve(*view.World)
		r.proofs.enter(*view.World, now)
	}
	wanted := wantedFollowers(view)
	for id, f := range r.followers {
		if wanted[id] == f.address {
			continue
		}
		f.stop()
		delete(r.followers, id)
		r.unfollow(id)
		delete(r.invalid, id)
		delete(r.ahead, id)
		delete(r.healed, id)
		delete(r.accused, id)
		dropped = append(dropped, id)
	}
	return dropped
}

// current says whether what a stream brought is of a member that is followed, and not of an earlier process of its id.
func (r *roster) current(in followed) bool {
	f, ok := r.followers[in.member]
	return ok && f.address == in.address
}

// reject warns of a member that sends impossible statuses, once.
func (r *roster) reject(in followed) {
	if r.invalid[in.member] {
		return
	}
	r.invalid[in.member] = true
	r.events.emit(progress.Warning{Message: fmt.Sprintf("%s sent an impossible status, which is ignored: %s",
		in.member, job.Clean(in.invalid.Error()))})
}

// listen takes a status.
func (r *roster) listen(s *proto.Status) {
	r.statuses[s.Member] = s
	if r.inWorld(s.Member) {
		delete(r.proofs.silent, s.Member)
	}
}

// saidOften is how many warnings of a kind are said; then each hundredth.
const saidOften = 20

// heal reports the heals of a member of the world, each once.
func (r *roster) heal(s *proto.Status) {
	if !r.inWorld(s.Member) {
		return
	}
	already := r.healed[s.Member]
	if r.healed[s.Member] = s.Heals; s.Heals <= already { // a process that comes back under its id begins at 0
		return
	}
	switch r.heals++; {
	case r.heals <= saidOften:
		r.events.emit(progress.Warning{Message: "healed: " + s.Heal})
	case r.heals%100 == 0:
		r.events.emit(progress.Warning{Message: fmt.Sprintf("healed (so far in this term: %d): %s", r.heals, s.Heal)})
	}
}

// accuses reports whether a status has an accusation that was not logged yet: one of each member of a world is.
func (r *roster) accuses(s *proto.Status) bool {
	w, _ := r.proofs.present()
	if a := s.Accusation; a == nil || a.Kind == policy.KindWaiting || !r.inWorld(s.Member) ||
		a.Generation != w.Generation || r.accused[s.Member] == w.Generation {
		return false
	}
	r.accused[s.Member] = w.Generation
	return true
}

// fact is the part of a status that the policy may use. A member outside the present world counts only about itself.
func (r *roster) fact(s *proto.Status) policy.Report {
	report := policy.Report{Member: s.Member, Generation: s.Generation, Step: s.Step, Resting: policy.Rests(s.Phase)}
	if !r.inWorld(s.Member) {
		report.CatchingUp = s.Phase == policy.PhaseCatchUp
		return report
	}
	report.Holding, report.Committed = s.Holding, s.Generation > 0 && s.Opened == s.Generation
	report.Agreed = s.Generation > 0 && s.Agreed == s.Generation
	if a := s.Accusation; a != nil {
		report.Accusation = &policy.Accusation{Suspect: a.Suspect, Kind: a.Kind, Step: a.Step, Phase: a.Phase,
			Detail: a.Detail, Paused: a.Paused}
	} else if s.Verdict != "" { // which the others do not share, or it would have ended the job
		report.Accusation = &policy.Accusation{Kind: policy.KindOther, Step: s.Step, Phase: s.Phase, Detail: s.Verdict}
	}
	return report
}

// committed is the newest step that so many members of the present world have reached that they decide; -1: none. After
// a planned change the world before decides, too, until the present one has agreed on a state: its members finish a
// step, or many, before they enter, and what one that joins has is no word against those steps.
func (r *roster) committed(now time.Time) int64 {
	newest := int64(-1)
	for _, w := range slices.Backward(r.proofs.worlds) {
		var steps []int64
		agree := 0
		for id, s := range r.statuses {
			if w.peers[job.Peer{ID: id, Address: r.followers[id].address}] {
				steps = append(steps, s.Step)
				if s.Agreed >= w.Generation {
					agree++
				}
			}
		}
		step := r.proofs.committed(w, steps, now)
		newest = max(newest, step)
		w.agrees(agree, step)
		if w.agreed || w.Since == w.Generation {
			break
		}
	}
	return newest
}

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
func (r *roster) inWorld(member string) bool {
	w, ok := r.proofs.present()
	f, followed := r.followers[member]
	return ok && followed && slices.Contains(w.Peers, job.Peer{ID: member, Address: f.address})
}

// maxAhead members' commits are kept until their world is seen; one member suffices, because all report the same
// commits.
const maxAhead = 64

// witnessed are the commits that a member can report: all, if it is in the present world; otherwise those of an earlier
// world that it was in. Commits of a world that this term has not seen yet are kept until it has; those of one that
// left no record, until the member is in the present world.
func (r *roster) witnessed(member string, commits []*proto.Commit) []*proto.Commit {
	if r.inWorld(member) {
		return commits
	}
	var out, ahead []*proto.Commit
	present, _ := r.proofs.present()
	for _, c := range commits {
		switch {
		case r.proofs.used(c.Generation, member, r.followers[member].address):
			if c.Step <= r.proofs.last(c.Generation) {
				out = append(out, c)
			}
		case c.Generation > present.Generation || r.proofs.unknown(c.Generation):
			ahead = append(ahead, c)
		}
	}
	if kept, known := r.ahead[member]; len(ahead) > 0 && len(kept)+len(ahead) <= maxCommits &&
		(known || len(r.ahead) < maxAhead) {
		r.ahead[member] = append(kept, ahead...)
	}
	return out
}

// takeAhead returns, by member, the commits that were kept until their world was seen, and keeps them no more.
func (r *roster) takeAhead() map[string][]*proto.Commit {
	kept := r.ahead
	r.ahead = map[string][]*proto.Commit{}
	return kept
}

// peers are the statuses of the present world's members that report.
func (r *roster) peers() []*proto.Status {
	var all []*proto.Status
	for id, s := range r.statuses {
		if r.inWorld(id) {
			all = append(all, s)
		}
	}
	return all
}

// reports says whether a process reports now.
func (r *roster) reports(peer job.Peer) bool {
	return r.statuses[peer.ID] != nil && r.followers[peer.ID].address == peer.Address
}

// unfollow drops the status of a member whose stream has ended.
func (r *roster) unfollow(member string) {
	if r.inWorld(member) {
		r.proofs.silent[member] = time.Now()
	}
	delete(r.statuses, member)
}

// agree reports whether the members of the present world whose status satisfies says decide.
func (r *roster) agree(says func(*proto.Status) bool) bool {
	peers, n := r.peers(), 0
	for _, s := range peers {
		if says(s) {
			n++
		}
	}
	w, _ := r.proofs.present()
	return r.proofs.quorum(r.proofs.of(w.Generation), n, len(peers), time.Now())
}

// disbelieve names members whose verdict the others did not share: their world has gone on to the next.
func (r *roster) disbelieve(next job.World) {
	if w, ok := r.proofs.present(); !ok || w.Generation >= next.Generation {
		return
	}
	for _, s := range r.peers() {
		if s.Verdict != "" {
			r.events.emit(progress.Warning{Message: fmt.Sprintf("%s says that the job has failed, and the others do "+
				"not: %s", s.Member, s.Verdict)})
		}
	}
}
