package coordinator

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// Bounds of what one status may say.
const (
	maxStatus  = 256 << 10 // bytes of a message
	maxCommits = 4096
	maxHeld    = 64
	maxNanos   = 1 << 62
)

// checkStatus returns an error that names what is impossible in a member's status, or nil. It cleans texts: they reach
// terminals, logs and etcd. A commit must have as many metrics as the task.
func checkStatus(s *proto.Status, j job.Job, member string, metrics int) error {
	plan, total := j.Spec.Plan(), j.Spec.TotalSteps()
	switch {
	case s.Member != member || s.Job != j.UUID:
		return fmt.Errorf("it speaks for member %q of job %q", job.Clean(s.Member), job.Clean(s.Job))
	case s.Generation < 0 || s.Generation > job.MaxStep:
		return fmt.Errorf("generation %d", s.Generation)
	case min(s.Opened, s.Agreed) < 0 || max(s.Opened, s.Agreed) > s.Generation:
		return fmt.Errorf("generations %d and %d opened for it, and it has been in %d at most", s.Agreed, s.Opened,
			s.Generation)
	case s.Step < -1 || s.Step > total:
		return fmt.Errorf("step %d of a schedule of %d", s.Step, total)
	case len(s.Commits) > maxCommits:
		return fmt.Errorf("%d commits in one status: at most %d", len(s.Commits), maxCommits)
	case len(s.Due) > maxHeld:
		return fmt.Errorf("%d due states: at most %d", len(s.Due), maxHeld)
	case s.Heals < 0:
		return fmt.Errorf("%d heals", s.Heals)
	case s.Holding && (s.Held == nil || s.Held.Step != s.Step):
		return fmt.Errorf("it holds step %d and does not say which state", s.Step)
	}
	if l := s.Ledger; l != nil && (l.Epoch < 0 || l.Epoch > total || l.Samples != int64(j.Spec.Samples) || l.Used < 0 ||
		l.Used > l.Samples) {
		return fmt.Errorf("a ledger of epoch %d with %d of %d samples", l.Epoch, l.Used, l.Samples)
	}
	last := int64(0)
	for _, c := range s.Commits {
		if c == nil || c.Step <= last {
			return fmt.Errorf("commits out of order after step %d", last)
		}
		last = c.Step
		c.Skipped = job.Lines(c.Skipped)[0]
		if err := checkCommit(c, j.Spec, plan.MicroBatches(), metrics); err != nil {
			return fmt.Errorf("commit of step %d: %w", c.Step, err)
		}
	}
	for _, h := range s.Due {
		if err := checkHeld(h, total); err != nil {
			return err
		}
	}
	if s.Held != nil {
		if err := checkHeld(s.Held, total); err != nil {
			return err
		}
	}
	s.Phase, s.Verdict, s.Heal, s.Fingerprint = job.Clean(s.Phase), job.Lines(s.Verdict)[0], job.Lines(s.Heal)[0],
		job.Clean(s.Fingerprint)
	if a := s.Accusation; a != nil {
		if a.Generation < 0 || a.Generation > job.MaxStep || a.Step < -1 || a.Step > total || a.Chunk < 0 ||
			a.WaitedNanos < 0 || a.WaitedNanos > maxNanos {
			return fmt.Errorf("an accusation in generation %d at step %d, chunk %d, after %d ns",
				a.Generation, a.Step, a.Chunk, a.WaitedNanos)
		}
		a.Suspect, a.Kind, a.Phase, a.Detail = job.Clean(a.Suspect), job.Clean(a.Kind), job.Clean(a.Phase),
			job.Clean(a.Detail)
	}
	return nil
}

func checkCommit(c *proto.Commit, spec job.Spec, microBatches, metrics int) error {
	nanos := func(n int64) bool { return n >= 0 && n <= maxNanos }
	total := spec.TotalSteps()
	switch {
	case c.Step < 1 || c.Step > total:
		return fmt.Errorf("the schedule has %d steps", total)
	case c.Epoch < 0 || c.Epoch > total || c.Generation < 0 || c.Generation > job.MaxStep:
		return fmt.Errorf("epoch %d, generation %d", c.Epoch, c.Generation)
	case c.Workers < 1 || int(c.Workers) > microBatches || len(c.Assignment) > microBatches:
		return fmt.Errorf("%d workers with %d shares of %d micro-batches", c.Workers, len(c.Assignment), microBatches)
	case len(c.Metrics) != metrics:
		return fmt.Errorf("%d metrics: the task has %d", len(c.Metrics), metrics)
	case !progress.Finite(c.Loss) ||
		slices.ContainsFunc(c.Metrics, func(m float64) bool { return !progress.Finite(m) }) ||
		c.Samples < 1 || c.Samples > int64(spec.GlobalBatch):
		return fmt.Errorf("loss %v, metrics %v of %d samples", c.Loss, c.Metrics, c.Samples)
	case c.Skipped != "" && spec.OnNonfinite != job.Skip:
		return fmt.Errorf("skipped (%s): this job skips no step", c.Skipped)
	case !nanos(c.TimeNanos) || !nanos(c.ComputeNanos) || !nanos(c.ReduceNanos) || !nanos(c.WaitNanos) ||
		!nanos(c.UpdateNanos):
		return fmt.Errorf("times of %d, %d, %d, %d and %d ns", c.TimeNanos, c.ComputeNanos, c.ReduceNanos, c.WaitNanos,
			c.UpdateNanos)
	}
	return nil
}

func checkHeld(h *proto.HeldState, total int64) error {
	if h == nil || h.Step < 0 || h.Step > total || len(h.Sha256) != sha256.Size || h.Generation < 0 ||
		h.Generation > job.MaxStep {
		return fmt.Errorf("a held state of step %d of %d, generation %d, with a hash of %d bytes",
			h.GetStep(), total, h.GetGeneration(), len(h.GetSha256()))
	}
	return nil
}
