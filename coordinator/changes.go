package coordinator

import (
	"fmt"
	"slices"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// memberChanges are the events of members that came, went or are refused between two views.
func memberChanges(before, after cluster.View, layout *state.Layout) (events []progress.Event) {
	for _, m := range after.Members {
		was, known := before.Member(m.ID)
		if !known {
			events = append(events, progress.MemberChange{ID: m.ID, What: progress.Ready,
				Detail: fmt.Sprintf("pid %d on %s", m.PID, m.Host)})
		}
		for _, why := range refusals(m, after.Job, layout) {
			if !known || !slices.Contains(refusals(was, before.Job, layout), why) { // once for each reason
				events = append(events, progress.MemberChange{ID: m.ID, What: progress.Refused, Detail: why})
			}
		}
	}
	for _, m := range before.Members {
		if _, still := after.Member(m.ID); !still {
			what := progress.Lost
			if m.Leaving {
				what = progress.Left
			}
			events = append(events, progress.MemberChange{ID: m.ID, What: what,
				Detail: fmt.Sprintf("pid %d on %s", m.PID, m.Host)})
		}
	}
	return events
}

// refusals are why a member is not admitted to a job.
func refusals(m job.Member, j *job.Job, layout *state.Layout) (why []string) {
	if err := m.Speaks(); err != nil {
		why = append(why, err.Error())
	}
	if j != nil && j.Numerics != "" && m.Numerics != j.Numerics {
		detail := fmt.Sprintf("its golden probe gives %s, the job's is %s", m.Numerics, j.Numerics)
		if where := probe.FirstDifference(layout, m.NumericsParts, j.NumericsParts); where != "" {
			detail += "; they differ first in " + where
		}
		why = append(why, detail)
	}
	return why
}

// worldEvent describes the world of a view.
func worldEvent(view cluster.View) progress.World {
	w := view.World
	e := progress.World{Generation: uint64(w.Generation), Size: w.Size(), Reason: w.Reason,
		Planned: w.Since < w.Generation}
	for rank, p := range w.Peers {
		m, _ := view.Member(p.ID)
		e.Members = append(e.Members, progress.Member{ID: p.ID, Rank: rank, Address: p.Address, PID: m.PID,
			Host: m.Host})
	}
	return e
}
