package coordinator

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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

func (a *acknowledged) of(member string) []int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.steps[member])
}

// With a checkpoint at every step, a member gets no call for each: the first step is acknowledged at once, then the
// newest one at a pace, and always the last one.
func TestAcknowledgementsKeepAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &acknowledged{steps: map[string][]int64{}}
		s := &saver{members: newRoster(cluster.View{Job: &job.Job{}}, nil, nil), source: to, tasks: &sync.WaitGroup{},
			log: slog.New(slog.DiscardHandler)}
		for _, id := range []string{"a", "b"} {
			s.members.followers[id] = follower{address: id, acks: &acknowledgements{}}
		}
		const every = acknowledgePace/8 + time.Millisecond // so that no step comes with a call
		for step := int64(1); step <= 17; step++ {
			s.durable.Manifest.Step = step
			s.acknowledge(t.Context(), "a")
			synctest.Wait()
			if step == 1 && !slices.Equal(to.of("a"), []int64{1}) {
				t.Fatalf("the first is not acknowledged at once: %v", to.of("a"))
			}
			time.Sleep(every)
		}
		s.tasks.Wait()
		if got := to.of("a"); !slices.Equal(got, []int64{1, 8, 16, 17}) {
			t.Errorf("acknowledged: %v", got)
		}
		s.acknowledge(t.Context(), "b") // another member's pace is its own
		if synctest.Wait(); !slices.Equal(to.of("b"), []int64{17}) {
			t.Errorf("b: %v", to.of("b"))
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.acknowledge(ctx, "b")
		cancel() // the term is over
		if s.tasks.Wait(); len(to.of("b")) != 1 {
			t.Errorf("after the term: %v", to.of("b"))
		}
	})
}
