package coordinator

import (
	"fmt"

	"evenweave/internal/cluster"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// memberChanges are the events of members that came, went or are refused between two views.
func memberChanges(before, after cluster.View, layout *state.Layout) (events []progress.Event) {
	for _, m := range after.Members {
		if _, known := before.Member(m.ID); known {
			continue
		}
		events = append(events, progress.MemberChange{ID: m.ID, What: progress.Ready,
			Detail: fmt.Sprintf("pid %d on %s", m.PID, m.Host)})
		if err := m.Speaks(); err != nil {
			events = append(events, progress.MemberChange{ID: m.ID, What: progress.Refused, Detail: err.Error()})
		}
		if j := after.Job; j.Numerics != "" && m.Numerics != j.Numerics {
			detail := fmt.Sprintf("its golden probe gives %s, the job's is %s", m.Numerics, j.Numerics)
			if where := probe.FirstDifference(layout, m.NumericsParts, j.NumericsParts); where != "" {
				detail += "; they differ first in " + where
			}
			events = append(events, progress.MemberChange{ID: m.ID, What: progress.Refused, Detail: detail})
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
