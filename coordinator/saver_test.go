package coordinator

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

// acknowledged keeps the steps that are acknowledged to members.
type acknowledged struct {
	mu    sync.Mutex
	steps map[string][]int64
}

func (*acknowledged) fetch(context.Context, string, string, int64, string) (s state.Stream, err error) {
	return s, err
}

func (a *acknowledged) acknowledge(_ context.Context, member, _ string, step int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.steps[member] = append(a.steps[member], step)
	return nil
}

// Members learn of each durable step at once, however short steps are: those that disagree go back to the newest one
// that they know of, and the directory keeps only some of the newest.
func TestEachDurableStepIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &acknowledged{steps: map[string][]int64{}}
		s := &saver{members: newRoster(cluster.View{Job: &job.Job{}}, nil, nil), source: to, tasks: &sync.WaitGroup{},
			log: slog.New(slog.DiscardHandler)}
		for _, id := range []string{"a", "b"} {
			s.members.followers[id] = follower{address: id, acknowledging: &atomic.Bool{}}
		}
		for step := int64(1); step <= 5; step++ {
			s.durable.Manifest.Step = step
			s.acknowledge(t.Context(), "a")
			s.acknowledge(t.Context(), "b")
			synctest.Wait() // no time passes
		}
		for _, id := range []string{"a", "b"} {
			if !slices.Equal(to.steps[id], []int64{1, 2, 3, 4, 5}) {
				t.Errorf("acknowledged to %s: %v", id, to.steps[id])
			}
		}
		s.tasks.Wait()
	})
}
