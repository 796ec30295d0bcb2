package coordinator

import (
	"slices"
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// A leader that was paused reported steps into the file that another had replaced meanwhile; when it leads again, it
// reports them again.
func TestStepsThatALaterLeaderLacksAreReportedAgain(t *testing.T) {
	a := onADirectory(t, &eventLog{})
	j := job.Job{UUID: "job", Spec: job.Spec{Samples: 1000, GlobalBatch: 10, MicroBatch: 10, Steps: 1000}}
	report := func(c *Coordinator, from, to int64) {
		var commits []*proto.Commit
		for step := from; step <= to; step++ {
			commits = append(commits, &proto.Commit{Step: step, Generation: 1, Workers: 1, Samples: 10, TimeNanos: step,
				Metrics: []float64{1, 2}})
		}
		for _, e := range c.steps.take(j.Spec, time.Now(), reportWait, to, "a", commits...) {
			c.journal.emit(e)
		}
	}
	lead := func(c *Coordinator) (stop func()) {
		stop, err := c.openJournal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.begin(j, 0)
		c.steps.lead(0)
		return stop
	}
	a.begin(j, 0)
	report(a, 1, 31)
	a.journal.sync()
	b := newCoordinator(a.Config, nil, a.archive.Store, a.archive.layout)
	stop := lead(b)
	report(a, 32, 50) // it does not know yet
	stop()            // b dies before a member has reported to it
	a.journal.close()
	stop = lead(a)
	report(a, 1, 51) // what the members hold
	stop()
	if err := a.journal.open(t.Context(), func(progress.Record) {}); err != nil { // for the cleanup
		t.Fatal(err)
	}
	var steps []int
	_, err := progress.ReadMetrics(a.journal.path(), func(r progress.Record) {
		if s, ok := r.Event.(progress.Step); ok {
			steps = append(steps, s.Step)
		}
	})
	if err != nil || len(steps) != 51 || !slices.IsSorted(steps) {
		t.Errorf("%v: metrics.jsonl has %v", err, steps)
	}
}
