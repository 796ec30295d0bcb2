package coordinator

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// summary follows the committed steps over all terms of this process. Safe for concurrent use.
type summary struct {
	metrics   []string // their names
	mu        sync.Mutex
	last      int64     // all up to this step are reported
	recorded  int64     // the last step that metrics.jsonl held when this term took it over
	early     []*early  // steps whose turn has not come, in order
	disputed  []int64   // that as many members report in one way as in another: they have no events
	gap       time.Time // when a step was first missing
	lastTime  int64
	firstTime int64
	samples   int64 // committed after the first commit seen
	skips     int   // skipped steps, also those that metrics.jsonl holds of before
	lastSkip  int64
	workers   int
	entered   int64
}

func (s *summary) step() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// enter takes the generation of a world, and reports whether it is newer than all before.
func (s *summary) enter(generation int64) (newer bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer = generation > s.entered; newer {
		s.entered = generation
	}
	return newer
}

// begin starts counting at the step that the job goes on from.
func (s *summary) begin(step int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, step)
}

// recall takes a step that was reported before, and counts it if it was skipped.
func (s *summary) recall(r progress.Record) {
	e, ok := r.Event.(progress.Step)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recorded = max(s.recorded, int64(e.Step)); e.Skipped != "" {
		s.skip(int64(e.Step))
	}
}

// skip counts a skipped step, once. s.mu is held.
func (s *summary) skip(step int64) {
	if step > s.lastSkip {
		s.skips, s.lastSkip = s.skips+1, step
	}
}

// maxEarly bounds the steps that wait for others, and maxVersions what members say of one.
const (
	maxEarly    = 4 * maxCommits
	maxVersions = 8
)

// early is a step whose turn has not come, as members report it. They agree, unless one of them is damaged.
type early struct {
	step     int64
	versions []*version
}

// version is what some members report of a step.
type version struct {
	commit *proto.Commit
	by     map[string]bool
}

// says takes a member's word: it has one for a step.
func (e *early) says(member string, c *proto.Commit) {
	for _, v := range e.versions {
		if v.by[member] {
			return
		}
	}
	i := slices.IndexFunc(e.versions, func(v *version) bool { return sameStep(v.commit, c) })
	if i < 0 && len(e.versions) == maxVersions {
		return
	}
	if i < 0 {
		i, e.versions = len(e.versions), append(e.versions, &version{c, map[string]bool{}})
	}
	e.versions[i].by[member] = true
}

// most is the commit that most members report; clear: no other has as many.
func (e *early) most() (c *proto.Commit, clear bool) {
	most := 0
	for _, v := range e.versions {
		switch n := len(v.by); {
		case n > most:
			c, clear, most = v.commit, true, n
		case n == most:
			clear = false
		}
	}
	return c, clear
}

// sameStep reports whether two members have computed the same: it does not matter in which world, or for how long.
func sameStep(a, b *proto.Commit) bool {
	return a.Epoch == b.Epoch && a.Samples == b.Samples && a.Loss == b.Loss && slices.Equal(a.Metrics, b.Metrics) &&
		a.Skipped == b.Skipped
}

// take collects a member's commits and returns the events of steps whose turn has come: each once, in order. Commits
// may arrive out of order: a member that has joined knows no earlier ones. They wait until the gap closes, or until
// wait has passed, which also ends the wait for a majority where members disagree. Steps beyond upTo, which only a
// minority reports, wait too; of more than maxEarly the last are dropped, so that no member keeps those of the others
// out.
func (s *summary) take(spec job.Spec, now time.Time, wait time.Duration, upTo int64, member string,
	commits ...*proto.Commit) (due []progress.Step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range commits {
		if c.Step <= s.last {
			continue
		}
		i, known := slices.BinarySearchFunc(s.early, c.Step,
			func(e *early, step int64) int { return cmp.Compare(e.step, step) })
		if !known && i == maxEarly {
			continue
		}
		if !known {
			s.early = slices.Insert(s.early, i, &early{step: c.Step})
			s.early = s.early[:min(len(s.early), maxEarly)]
		}
		s.early[i].says(member, c)
	}
	for len(s.early) > 0 {
		next := s.early[0]
		if next.step > upTo {
			return due
		}
		commit, clear := next.most()
		if next.step != s.last+1 || !clear {
			if s.gap.IsZero() {
				s.gap = now
			}
			if now.Sub(s.gap) < wait {
				return due
			}
			// No member knows the steps between, or none knows which report is right.
		}
		if s.last = next.step; clear {
			due = append(due, s.event(spec, commit))
		} else {
			s.disputed = append(s.disputed, next.step)
		}
		s.early, s.gap = s.early[1:], time.Time{}
	}
	return due
}

// disputes returns the steps that have no event because members disagree, each once.
func (s *summary) disputes() (steps []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	steps, s.disputed = s.disputed, nil
	return steps
}

// awaits reports whether a member may still report steps up to this one, within the given time.
func (s *summary) awaits(step int64, now time.Time, wait time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last >= step {
		return false
	}
	if s.gap.IsZero() {
		s.gap = now
	}
	return now.Sub(s.gap) < wait
}

// lead starts a term from a durable step: its members have not reported yet. What this process reported when another
// one led already is in no file: it is reported again.
func (s *summary) lead(step int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gap, s.last, s.recorded = time.Time{}, min(s.last, max(s.recorded, step)), 0
}

// event turns the next commit into an event.
func (s *summary) event(spec job.Spec, c *proto.Commit) progress.Step {
	seconds := 0.0
	if s.firstTime == 0 {
		s.firstTime = c.TimeNanos
	} else {
		s.samples += c.Samples
		seconds = float64(c.TimeNanos-s.lastTime) / 1e9
	}
	s.last, s.lastTime, s.workers = c.Step, c.TimeNanos, int(c.Workers)
	if c.Skipped != "" {
		s.skip(c.Step)
	}
	rate := 0.0
	if seconds > 0 {
		rate = float64(c.Samples) / seconds
	}
	plan := spec.Plan()
	epoch, within := plan.Position(c.Step)
	images := epoch*int64(spec.Samples) + min(within*int64(spec.GlobalBatch), int64(spec.Samples))
	ms := func(nanos int64) float64 { return float64(nanos) / 1e6 }
	return progress.Step{
		Step: int(c.Step), Epoch: int(c.Epoch) + 1, Loss: c.Loss, Metrics: named(s.metrics, c.Metrics),
		Generation: uint64(c.Generation), Workers: int(c.Workers),
		Images: images, Seconds: seconds, SamplesPerSecond: rate,
		ComputeMS: ms(c.ComputeNanos), ReduceMS: ms(c.ReduceNanos), WaitMS: ms(c.WaitNanos),
		UpdateMS: ms(c.UpdateNanos), Skipped: c.Skipped, Skips: s.skips,
	}
}

// named are the values of metrics under their names; validation has counted them.
func named(names []string, values []float64) (out []progress.Metric) {
	for i, name := range names {
		out = append(out, progress.Metric{Name: name, Value: values[i]})
	}
	return out
}

// total is what all the steps come to: the workers of the last one, how many were skipped, and the samples a second
// from the first to the last one that this process has seen.
func (s *summary) total() (workers, skipped int, rate float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastTime > s.firstTime {
		rate = float64(s.samples) / (float64(s.lastTime-s.firstTime) / 1e9)
	}
	return s.workers, s.skips, rate
}
