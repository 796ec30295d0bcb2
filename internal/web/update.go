package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"evenweave/internal/progress"
)

// formatVersion is that of the JSON that pages get and run directories keep.
const formatVersion = 1

// update is what a browser lacks. One with Reset holds everything: a browser forgets what it had.
type update struct {
	Version     int                   `json:"version"`
	Reset       bool                  `json:"reset,omitempty"`
	Origin      int64                 `json:"origin"` // of laps and columns
	Job         jobInfo               `json:"job"`
	Totals      totals                `json:"totals"`
	Ledger      *progress.Ledger      `json:"ledger,omitempty"`
	Members     []member              `json:"members"`
	Curve       *curvePart            `json:"curve,omitempty"`
	Evaluations *curvePart            `json:"evaluations,omitempty"`
	Worlds      *part[world]          `json:"worlds,omitempty"`
	Recoveries  *part[recovery]       `json:"recoveries,omitempty"`
	Notes       *part[note]           `json:"notes,omitempty"`
	Checkpoints *part[checkpointInfo] `json:"checkpoints,omitempty"`
	Waits       *part[wait]           `json:"waits,omitempty"`
	Laps        *part[lap]            `json:"laps,omitempty"`
	Cells       *cellsPart            `json:"cells,omitempty"`
	Details     *progress.Details     `json:"details,omitempty"`
}

// cursor says what a browser has; the zero cursor: nothing.
type cursor struct {
	changed                                       int
	curve, evaluations                            curveSeen
	worlds, recoveries, notes, checkpoints, waits int
	detailed                                      int
	timeline                                      timelineSeen
}

// since returns what changed after c. It shares no memory with h.
func (h *history) since(c cursor) (update, cursor) {
	u := update{Version: formatVersion, Reset: c == cursor{}, Origin: ms(h.timeline.origin), Job: h.job,
		Totals: h.totals,
		Ledger: h.ledger}
	u.Members = make([]member, 0, len(h.members))
	for _, m := range h.members {
		u.Members = append(u.Members, *m)
	}
	next := cursor{changed: h.changed}
	u.Curve, next.curve = h.curve.since(c.curve)
	u.Evaluations, next.evaluations = h.evaluations.since(c.evaluations)
	u.Worlds, next.worlds = h.worlds.since(c.worlds)
	u.Recoveries, next.recoveries = h.recoveries.since(c.recoveries)
	u.Notes, next.notes = h.notes.since(c.notes)
	u.Checkpoints, next.checkpoints = h.checkpoints.since(c.checkpoints)
	u.Waits, next.waits = h.waits.since(c.waits)
	if next.detailed = h.detailed; next.detailed != c.detailed {
		u.Details = h.details
	}
	u.Laps, u.Cells, next.timeline = h.timeline.since(c.timeline)
	return u, next
}

// restore takes what an earlier process kept; the curves come from metrics.jsonl.
func (h *history) restore(u update) error {
	if u.Version != formatVersion {
		return fmt.Errorf("version %d: this build reads version %d", u.Version, formatVersion)
	}
	h.changed++
	h.job, h.totals, h.ledger = u.Job, u.Totals, u.Ledger
	h.timeline.origin = time.UnixMilli(u.Origin)
	h.worlds.refill(u.Worlds)
	h.recoveries.refill(u.Recoveries)
	h.notes.refill(u.Notes)
	h.checkpoints.refill(u.Checkpoints)
	h.waits.refill(u.Waits)
	if u.Details != nil {
		h.show(*u.Details)
	}
	for _, m := range u.Members[:min(len(u.Members), maxMembers)] {
		m.reported = time.UnixMilli(0)
		h.numbered = max(h.numbered, m.Number)
		h.members = append(h.members, &m)
	}
	if h.timeline.laps.refill(u.Laps); u.Laps != nil {
		for _, l := range u.Laps.Items {
			if m := h.numberedMember(l.member); m != nil {
				m.reported = h.timeline.origin.Add(l.end + time.Millisecond) // laps are kept in whole milliseconds
			}
		}
	}
	return h.timeline.restore(u.Cells)
}

// restore puts back columns.
func (t *timeline) restore(p *cellsPart) error {
	if p == nil {
		return nil
	}
	width := time.Duration(p.WidthMS) * time.Millisecond
	if width < firstWidth || len(p.Cells) > maxCells {
		return fmt.Errorf("%d cells of a timeline with columns of %v: expected %d at most, of %v or more", len(p.Cells),
			width,
			maxCells, firstWidth)
	}
	t.width, t.cells = width, p.Cells
	return nil
}

// UnmarshalJSON reads a row that MarshalJSON wrote.
func (l *lap) UnmarshalJSON(data []byte) error {
	r, p, err := fromRow(data)
	*l = lap{int(r[0]), time.Duration(r[1]) * time.Millisecond, int(r[2]), int(r[3]), p}
	return err
}

// UnmarshalJSON reads a row that MarshalJSON wrote.
func (c *cell) UnmarshalJSON(data []byte) error {
	r, p, err := fromRow(data)
	*c = cell{int(r[0]), int(r[1]), int(r[2]), int(r[3]), p}
	return err
}

func fromRow(data []byte) (r [8]int64, p phases, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, p, err
	}
	for _, x := range r {
		if x < 0 || x > 1<<50 {
			return [8]int64{}, p, errors.New("a row of the timeline holds a number out of range")
		}
	}
	d := func(i int) time.Duration { return time.Duration(r[i]) * tenth }
	return r, phases{d(4), d(5), d(6), d(7)}, nil
}

// UnmarshalJSON leaves out the rows: curves come from metrics.jsonl.
func (p *curvePart) UnmarshalJSON([]byte) error { return nil }
