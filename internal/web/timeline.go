package web

import (
	"strconv"
	"time"

	"evenweave/internal/progress"
)

const (
	lapLength  = 50 * time.Millisecond // shorter steps of a member become one lap of this length
	maxLaps    = 4096                  // of all members: the end of the timeline, step by step
	firstWidth = time.Second           // of a column
	maxColumns = 1024                  // of the whole timeline
	maxCells   = 8192                  // of all members
)

// phases is the time that a member spent in each phase of its steps.
type phases struct{ compute, wait, reduce, update time.Duration }

func (p phases) sum() time.Duration { return p.compute + p.wait + p.reduce + p.update }

func (p *phases) add(q phases) {
	p.compute, p.wait, p.reduce, p.update = p.compute+q.compute, p.wait+q.wait, p.reduce+q.reduce, p.update+q.update
}

// lap is a step of a member, or some short ones in a row.
type lap struct {
	member int
	end    time.Duration // since the origin
	steps  int
	share  int // micro-batches of the last step
	phases
}

// cell sums up what a member did in one column of time.
type cell struct {
	column, member int
	steps          int
	share          int // micro-batches of all its steps
	phases
}

// timeline is what each member did when, in bounded memory: columns of equal width for all of it, and laps for its end.
type timeline struct {
	origin time.Time
	width  time.Duration
	cells  []cell // by column
	merges int
	laps   recent[lap]
	open   map[int]lap // by member: shorter than a lap so far
}

func newTimeline() timeline {
	return timeline{width: firstWidth, laps: recent[lap]{limit: maxLaps}, open: map[int]lap{}}
}

// add takes a step of a member.
func (t *timeline) add(member int, s progress.StepTiming) {
	l := lap{member, s.Committed.Sub(t.origin), 1, s.MicroBatches, phases{s.Compute, s.Wait, s.Reduce, s.Update}}
	t.lap(l)
	t.put(cell{int(l.end / t.width), member, 1, l.share, l.phases})
	for len(t.cells) > 0 && (len(t.cells) > maxCells || t.cells[len(t.cells)-1].column >= maxColumns) {
		t.widen()
	}
}

// lap joins short steps that follow each other without a pause.
func (t *timeline) lap(l lap) {
	open, there := t.open[l.member]
	if there && l.end-l.sum()-open.end > lapLength { // a recovery, say, lies between
		t.laps.add(open)
		there = false
	}
	if there {
		l.steps += open.steps
		l.phases.add(open.phases)
	}
	if delete(t.open, l.member); l.sum() >= lapLength {
		t.laps.add(l)
		return
	}
	t.open[l.member] = l
}

// put adds to the cell of that column and member. Members report at about the same time: it is one of the last.
func (t *timeline) put(c cell) {
	at := len(t.cells)
	for i := at - 1; i >= 0 && t.cells[i].column >= c.column; i-- {
		if d := &t.cells[i]; d.column == c.column && d.member == c.member {
			d.steps, d.share = d.steps+c.steps, d.share+c.share
			d.phases.add(c.phases)
			return
		}
		if t.cells[i].column > c.column {
			at = i
		}
	}
	t.cells = append(t.cells, cell{})
	copy(t.cells[at+1:], t.cells[at:])
	t.cells[at] = c
}

// widen makes columns twice as wide.
func (t *timeline) widen() {
	old := t.cells
	t.width *= 2
	t.merges++
	t.cells = make([]cell, 0, len(old))
	for _, c := range old {
		c.column /= 2
		t.put(c)
	}
}

// cellsPart is what a browser lacks of the columns. It drops its cells from column From on, and appends these.
type cellsPart struct {
	WidthMS int64  `json:"width_ms"`
	From    int    `json:"from"`
	Cells   []cell `json:"cells"`
}

// timelineSeen says how much of a timeline a browser has.
type timelineSeen struct{ merges, column, laps int }

// late is how many columns back a report may still change a cell.
const late = 10

func (t *timeline) since(seen timelineSeen) (laps *part[lap], cells *cellsPart, now timelineSeen) {
	laps, now.laps = t.laps.since(seen.laps)
	now.merges = t.merges
	if laps == nil {
		return nil, nil, timelineSeen{seen.merges, seen.column, now.laps}
	}
	from := len(t.cells)
	for from > 0 && (seen.merges != t.merges || t.cells[from-1].column >= seen.column-late) {
		from--
	}
	cells = &cellsPart{WidthMS: t.width.Milliseconds(), Cells: append([]cell(nil), t.cells[from:]...)}
	if seen.merges == t.merges {
		cells.From = max(0, seen.column-late)
	}
	if n := len(t.cells); n > 0 {
		now.column = t.cells[n-1].column
	}
	return laps, cells, now
}

// MarshalJSON writes a row: member, end in milliseconds since the origin, steps, share, then the phases in tenths of
// milliseconds: compute, wait, reduce, update.
func (l lap) MarshalJSON() ([]byte, error) {
	return row(int64(l.member), l.end.Milliseconds(), int64(l.steps), int64(l.share), l.phases), nil
}

// MarshalJSON writes a row: column, member, steps, share, then the phases as of a lap.
func (c cell) MarshalJSON() ([]byte, error) {
	return row(int64(c.column), int64(c.member), int64(c.steps), int64(c.share), c.phases), nil
}

const tenth = 100 * time.Microsecond

func row(a, b, c, d int64, p phases) []byte {
	out := make([]byte, 0, 48)
	for i, x := range []int64{a, b, c, d, int64(p.compute / tenth), int64(p.wait / tenth), int64(p.reduce / tenth),
		int64(p.update / tenth)} {
		out = append(out, "[,"[min(i, 1)])
		out = strconv.AppendInt(out, x, 10)
	}
	return append(out, ']')
}
