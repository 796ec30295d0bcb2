package web

import (
	"slices"
	"time"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/progress"
)

const (
	maxWorlds  = 500
	maxNotes   = 500
	maxMembers = 256
)

// history is what the page shows. Its owner locks it.
type history struct {
	job         jobInfo
	curve       curve
	evaluations curve
	timeline    timeline
	worlds      recent[world]
	recoveries  recent[recovery]
	notes       recent[note]
	checkpoints recent[checkpointInfo]
	waits       recent[wait]
	details     *progress.Details // of the newest evaluation that has any; not changed
	detailed    int               // how often there were new ones
	members     []*member
	numbered    int // members so far
	totals      totals
	ledger      *progress.Ledger
	broken      *world    // the present world replaced one that broke, and has not committed yet
	lastCommit  time.Time // of the newest step
	changed     int       // rises with each change
}

func newHistory() *history {
	return &history{
		curve: newCurve(), evaluations: newCurve(), timeline: newTimeline(),
		worlds: recent[world]{limit: maxWorlds}, recoveries: recent[recovery]{limit: maxWorlds},
		notes: recent[note]{limit: maxNotes}, checkpoints: recent[checkpointInfo]{limit: maxNotes},
		waits: recent[wait]{limit: maxNotes},
	}
}

// observe takes an event.
func (h *history) observe(r progress.Record) {
	h.begin(r.Time)
	h.changed++
	switch e := r.Event.(type) {
	case progress.Start:
		h.start(r.Time, e)
	case progress.Step:
		h.step(r.Time, e)
	case progress.World:
		h.world(r.Time, e)
	case progress.Evaluation:
		h.evaluation(e)
	case progress.Checkpoint:
		h.checkpoints.add(checkpointInfo{ms(r.Time), e.Step, e.Epoch, job.Clean(e.Path), e.Bytes, e.Seconds})
	case progress.MemberChange:
		h.memberChange(r.Time, e)
	case progress.Notice:
		h.note(r.Time, "notice", e.Message)
	case progress.Warning:
		h.note(r.Time, "warning", e.Message)
	case progress.Failure:
		h.job.State = "failed"
		h.note(r.Time, "failure", e.Message)
	case progress.Done:
		h.done(r.Time, e)
	}
}

// begin fixes where time starts: at the first that happens.
func (h *history) begin(at time.Time) {
	if h.timeline.origin.IsZero() {
		h.timeline.origin = at
	}
}

func (h *history) start(at time.Time, e progress.Start) {
	if h.job.UUID != "" && h.job.UUID != e.UUID { // another job in this directory: its generations begin at 1 again
		for _, m := range h.members {
			m.Rank = -1
		}
		h.job.Generation, h.details = 0, nil
	}
	h.job = jobInfo{
		Name: job.Clean(e.Job), UUID: job.Clean(e.UUID), Model: job.Clean(e.Model), Recipe: job.Clean(e.Recipe),
		Backend: job.Clean(e.Backend), State: "waiting for workers", Seed: e.Seed, Steps: e.Steps, Epochs: e.Epochs,
		StepsPerEpoch: e.StepsPerEpoch, Samples: e.Samples, GlobalBatch: e.GlobalBatch, MicroBatch: e.MicroBatch,
		Generation: h.job.Generation, Started: ms(at), ResumedFrom: e.ResumedFrom,
	}
	h.lastCommit = time.Time{}
}

func (h *history) step(at time.Time, e progress.Step) {
	took := (e.ComputeMS + e.ReduceMS + e.WaitMS + e.UpdateMS) / 1000
	if e.Seconds > 0 {
		took = min(took, e.Seconds)
	}
	p := point{e.Step, e.Seconds, took, e.SamplesPerSecond * e.Seconds, nil}
	measured := append([]progress.Metric{{Name: "loss", Value: e.Loss}}, e.Metrics...)
	if e.Skipped != "" {
		measured = nil
	}
	if !h.curve.add(p, measured) {
		return
	}
	h.job.State, h.job.Step, h.job.Epoch, h.job.Workers = "training", e.Step, e.Epoch, e.Workers
	h.job.Images = e.Images
	if e.Seconds > 0 {
		h.totals.Seconds += e.Seconds
		h.totals.Productive += took
		h.totals.Samples += p.samples
	}
	if w := h.broken; w != nil && w.Generation <= e.Generation {
		if !h.lastCommit.IsZero() {
			seconds := max(0, at.Sub(h.lastCommit).Seconds())
			h.recoveries.add(recovery{ms(h.lastCommit), e.Step, w.Generation, w.Lost, w.Reason, seconds})
		}
		h.broken = nil
	}
	h.lastCommit = at
}

func (h *history) evaluation(e progress.Evaluation) {
	var numbers []progress.Metric
	add := func(prefix string, figures []evenweave.Figure) {
		for _, f := range figures {
			numbers = append(numbers, progress.Metric{Name: prefix + job.Clean(f.Name), Value: f.Value})
		}
	}
	add("", e.Figures)
	add("holdout_", e.Holdout)
	h.evaluations.add(point{step: e.Step, seconds: e.Seconds}, numbers)
}

// show takes what an evaluation has to show, if it is not older than what is shown.
func (h *history) show(d progress.Details) {
	if h.details != nil && d.Step < h.details.Step {
		return
	}
	bounded, _ := d.Bounded() // of a file, too
	h.details = &bounded
	h.detailed++
	h.changed++
}

func (h *history) done(at time.Time, e progress.Done) {
	h.job.State = "stopped"
	if e.Complete {
		h.job.State = "done"
	}
	h.job.WeightsSHA256 = job.Clean(e.WeightsSHA256)
	h.job.Ended = ms(at)
	h.note(at, "notice", h.job.State+", weights_sha256 "+e.WeightsSHA256)
}

func (h *history) note(at time.Time, kind, text string) {
	h.notes.add(note{ms(at), h.curve.step(), kind, job.Lines(text)[0]})
}

// world takes a new world: its members, and what became of those of the one before.
func (h *history) world(at time.Time, e progress.World) {
	if e.Generation <= h.job.Generation { // seen before this process started
		return
	}
	w := world{Time: ms(at), Step: h.curve.step(), Generation: e.Generation, Size: e.Size, Planned: e.Planned,
		Reason: job.Clean(e.Reason)}
	var before []int
	if last := h.worlds.last(); last != nil {
		before = last.Members
	}
	for _, m := range h.members {
		m.Rank = -1
	}
	for _, p := range e.Members[:min(len(e.Members), maxMembers)] {
		m := h.member(job.Clean(p.ID), at)
		m.Rank, m.Host, m.Address, m.PID = p.Rank, job.Clean(p.Host), job.Clean(p.Address), p.PID
		m.State, m.Ended = "training", 0
		w.Members = append(w.Members, m.Number)
		if !slices.Contains(before, m.Number) {
			w.Joined = append(w.Joined, m.ID)
		}
	}
	for _, number := range before {
		if m := h.numberedMember(number); m != nil && !slices.Contains(w.Members, number) {
			if m.State == "training" {
				m.State = "spare"
			}
			if e.Planned {
				w.Left = append(w.Left, m.ID)
			} else {
				w.Lost, m.State = append(w.Lost, m.ID), "lost"
			}
			m.Ended, m.Why = ms(at), w.Reason
		}
	}
	h.worlds.add(w)
	h.job.Generation, h.job.Workers = e.Generation, e.Size
	if h.broken = nil; !e.Planned && len(before) > 0 {
		h.broken = &w
		h.job.State = "recovering"
	}
}

// memberChange takes the coming or going of a member.
func (h *history) memberChange(at time.Time, e progress.MemberChange) {
	m := h.member(job.Clean(e.ID), at)
	detail := job.Clean(e.Detail)
	switch e.What {
	case progress.Ready:
		if m.Ended != 0 || m.State == "" {
			m.State, m.Ended, m.Since = "spare", 0, ms(at)
		}
	case progress.Left, progress.Lost, progress.Refused:
		if m.State != "lost" || e.What != progress.Left { // its lease ends after the world that it broke
			m.State = e.What
		}
		m.Rank = -1
		if m.Ended == 0 {
			m.Ended, m.Why = ms(at), detail
		}
	}
	h.note(at, "member", m.ID+" "+job.Clean(e.What)+": "+detail)
}

// report takes what a member says of itself.
func (h *history) report(at time.Time, r progress.MemberReport) {
	h.begin(at)
	h.changed++
	m := h.member(job.Clean(r.ID), at)
	m.Phase, m.Step, m.Rank, m.Generation = job.Clean(r.Phase), r.Step, r.Rank, r.Generation
	m.Address = job.Clean(r.Address)
	if r.Host != "" { // else its registration is over
		m.Host, m.PID = job.Clean(r.Host), r.PID
	}
	if r.Rank < 0 && m.State == "" {
		m.State = "spare"
	}
	if r.Ledger != nil {
		h.ledger = r.Ledger
	}
	for _, s := range r.Timings {
		if s.Committed.After(m.reported) { // else a repetition
			m.reported = s.Committed
			m.take(s)
			h.timeline.add(m.Number, s)
		}
	}
	h.wait(at, m, r.Wait)
}

// wait notes why a member's generation ended, once.
func (h *history) wait(at time.Time, m *member, w *progress.Wait) {
	if w == nil {
		m.wait = progress.Wait{}
		return
	}
	if m.wait.For == w.For && m.wait.Kind == w.Kind && m.wait.Step == w.Step {
		return
	}
	m.wait = *w
	h.waits.add(wait{ms(at), m.Number, m.ID, job.Clean(w.For), job.Clean(w.Kind), job.Clean(w.Phase), w.Step,
		w.Waited.Seconds()})
}

// member finds a member by its id, or numbers a new one. Of too many, the one that ended first is forgotten.
func (h *history) member(id string, at time.Time) *member {
	for _, m := range h.members {
		if m.ID == id {
			return m
		}
	}
	if len(h.members) >= maxMembers {
		oldest := 0
		for i, m := range h.members {
			if o := h.members[oldest]; m.Ended != 0 && (o.Ended == 0 || m.Ended < o.Ended) {
				oldest = i
			}
		}
		delete(h.timeline.open, h.members[oldest].Number)
		h.members = slices.Delete(h.members, oldest, oldest+1)
	}
	h.numbered++
	m := &member{Number: h.numbered, ID: id, Rank: -1, Since: ms(at)}
	h.members = append(h.members, m)
	return m
}

func (h *history) numberedMember(number int) *member {
	for _, m := range h.members {
		if m.Number == number {
			return m
		}
	}
	return nil
}

// ms is a time as the page knows it: milliseconds since 1970.
func ms(t time.Time) int64 { return t.UnixMilli() }
