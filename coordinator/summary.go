package coordinator

import (
	"context"
	"fmt"
	"sync"
	"time"

	"evenweave/checkpoint"
	"evenweave/job"
	"evenweave/progress"
	"evenweave/proto"
)

// summary follows the committed steps over all terms of this process. Safe for concurrent use.
type summary struct {
	mu        sync.Mutex
	last      int64
	lastTime  int64
	firstTime int64
	samples   int64 // committed after the first commit seen
	workers   int
	entered   int64
}

func (s *summary) step() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

func (s *summary) generation() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entered
}

func (s *summary) enter(generation int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entered = generation
}

// begin starts counting at the step that the job goes on from.
func (s *summary) begin(step int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last, step)
}

// take turns a commit into an event; false if that step was told before, by another member.
func (s *summary) take(spec job.Spec, c *proto.Commit) (progress.Step, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Step <= s.last {
		return progress.Step{}, false
	}
	seconds := 0.0
	if s.firstTime == 0 {
		s.firstTime = c.TimeNanos
	} else {
		s.samples += c.Samples
		seconds = float64(c.TimeNanos-s.lastTime) / 1e9
	}
	s.last, s.lastTime, s.workers = c.Step, c.TimeNanos, int(c.Workers)
	rate := 0.0
	if seconds > 0 {
		rate = float64(c.Samples) / seconds
	}
	plan := spec.Plan()
	epoch, within := plan.Position(c.Step)
	images := epoch*int64(spec.Samples) + min(within*int64(spec.GlobalBatch), int64(spec.Samples))
	ms := func(nanos int64) float64 { return float64(nanos) / 1e6 }
	return progress.Step{
		Step: int(c.Step), Epoch: int(c.Epoch) + 1, Loss: c.Loss, Accuracy: c.Accuracy, Generation: uint64(c.Generation), Workers: int(c.Workers),
		Images: images, Seconds: seconds, SamplesPerSecond: rate,
		ComputeMS: ms(c.ComputeNanos), ReduceMS: ms(c.ReduceNanos), WaitMS: ms(c.WaitNanos), UpdateMS: ms(c.UpdateNanos),
	}, true
}

// rate is committed samples a second from the first to the last committed step that this process has seen.
func (s *summary) rate() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastTime <= s.firstTime {
		return 0
	}
	return float64(s.samples) / (float64(s.lastTime-s.firstTime) / 1e9)
}

func (s *summary) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers
}

// begin tells what is trained, once.
func (c *Coordinator) begin(j job.Job, step int64) {
	if c.job != "" {
		return
	}
	c.job = j.UUID
	c.recent.begin(step)
	plan := j.Spec.Plan()
	c.emit(progress.Start{
		Job: c.Name, UUID: j.UUID, Model: j.Spec.Model, Recipe: j.Spec.Recipe, Seed: j.Spec.Seed, Backend: j.Backend, Workers: c.Workers,
		Steps: int(j.Spec.TotalSteps()), Epochs: int((j.Spec.TotalSteps() + plan.StepsPerEpoch() - 1) / plan.StepsPerEpoch()),
		StepsPerEpoch: int(plan.StepsPerEpoch()), Samples: j.Spec.Samples,
		GlobalBatch: j.Spec.GlobalBatch, MicroBatch: j.Spec.MicroBatch, ResumedFrom: int(step), Layers: c.Model.Layers(),
	})
}

// conclude waits for the evaluations that are under way, unless interrupted, and tells the end. nil for a complete job, ErrHalted for one that was stopped.
func (c *Coordinator) conclude(ctx context.Context, last checkpoint.Entry, d job.Done) error {
	m := last.Manifest
	c.vitals.does("concluding", 0)
	if c.Evaluate && d.Complete {
		_, idle := c.evaluations.waiting()
		select {
		case <-idle:
		case <-c.halt:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	e := progress.Done{
		Step: int(m.Step), Epoch: int(m.Epoch), Workers: c.recent.size(), Generation: uint64(d.Generation), WeightsSHA256: m.WeightsSHA256, Fingerprint: m.Fingerprint,
		SamplesPerSecond: c.recent.rate(), WallSeconds: time.Since(c.Started).Seconds(), Backend: c.Backend, Complete: d.Complete, Checkpoint: last.Path,
	}
	if ev, ok := c.evaluations.at(m.Step); ok {
		e.TestAccuracy, e.TestLoss = &ev.TestAccuracy, &ev.TestLoss
	}
	c.plot()
	c.emit(e)
	if !d.Complete {
		return ErrHalted
	}
	return nil
}

// lostRecord explains what to do when etcd answers and does not know the job any more.
func (c *Coordinator) lostRecord(uuid string) error {
	return fmt.Errorf("job %s is not in etcd any more: its data was lost or replaced; start coordinator and workers again on the directory %s "+
		"to go on from the newest checkpoint there; processes of the old job are fenced by its UUID", uuid, c.Dir)
}
