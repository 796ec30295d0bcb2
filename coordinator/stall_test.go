package coordinator

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/proto"
)

// slow gives a state of three blocks, each in most of the time after which a save stalls, and then writes no more until
// it is mended.
type slow struct {
	holding
	mended chan struct{}
}

func (s slow) fetch(_ context.Context, _, _ string, step int64, _ string) (state.Stream, error) {
	return state.Stream{Head: &state.Head{Step: step, Layout: s.layout}, Image: func(w io.Writer) error {
		for range 3 {
			<-time.After(saveStalls - time.Second)
			if _, err := w.Write([]byte("block")); err != nil {
				return err
			}
		}
		return nil
	}}, nil
}

func (s slow) write(ctx context.Context, j job.Job, term int64, of state.Stream) (checkpoint.Entry, error) {
	if err := of.Image(io.Discard); err != nil {
		return checkpoint.Entry{}, err
	}
	<-s.mended // whatever ctx says, as a write to a dead volume
	return s.holding.write(ctx, j, term, of)
}

// TestASaveThatHangsIsSaid: once, with step and directory, when no block has been written for a while, and once more
// under a halt. It is not given up, and counts when it is there after all.
func TestASaveThatHangsIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, events := leading(t, "a")
		disk := slow{holding{"a", one.dialer.layout}, make(chan struct{})}
		one.saver.source, one.saver.sink, one.steps.last, one.records = disk, disk, 40, led{}
		one.saver.durable.Path = "/volume/checkpoints/step-30"
		<-time.After(time.Hour)
		one.says(t, &proto.Status{Member: "a", Generation: 1, Step: 40, Due: []*proto.HeldState{heldState(40, "x", 1)}})
		ticks := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); <-time.After(tickEvery) {
				one.tick(t.Context())
			}
		}
		ticks(3 * saveStalls)
		if said := events.warnings(); len(said) > 0 {
			t.Errorf("said of a slow save: %q", said)
		}
		ticks(time.Hour)
		one.halting = true
		ticks(time.Hour)
		said := events.warnings()
		if len(said) != 2 || slices.ContainsFunc(said, func(s string) bool {
			return !strings.Contains(s, "step 40 in /volume/checkpoints has not come on for")
		}) || !one.saver.busy {
			t.Errorf("busy: %v; said %q, want step and directory, twice", one.saver.busy, said)
		}
		close(disk.mended)
		if _, err := one.take(t.Context(), <-one.inputs); err != nil || one.saver.durable.Step != 40 {
			t.Errorf("step %d is durable, %v", one.saver.durable.Step, err)
		}
		one.tasks.Wait()
	})
}
