package coordinator

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/proto"
)

// fullFS is a file system that has room for some checkpoints.
type fullFS struct {
	checkpoint.OS
	dir  string
	room int
}

func (f fullFS) Create(name string) (checkpoint.File, error) {
	if len(checkpointsIn(f.dir)) >= f.room {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.ENOSPC}
	}
	return f.OS.Create(name)
}

func checkpointsIn(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".ckpt") {
			names = append(names, e.Name())
		}
	}
	return names
}

// giving gives an empty state of any step.
type giving struct {
	acknowledged
	layout *state.Layout
}

func (g *giving) fetch(_ context.Context, _, _ string, step int64, _ string) (state.Stream, error) {
	s := state.New(g.layout, 1000)
	s.Step = step
	return state.Seal(s).Stream(), nil
}

// withFullDisk is a term of a run with --keep 1, in a directory of one with --keep 8 that has left 6 checkpoints.
func withFullDisk(t *testing.T, room int) (one *term, events *eventLog, dir string) {
	dir = t.TempDir()
	one, events = leading(t, "a")
	layout := flat(t, 100)
	archiveOn := func(fs checkpoint.FS) *archive {
		store, err := checkpoint.Open(dir, checkpoint.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		return &archive{Store: store, layout: layout, samples: 1000, keep: 1, spared: func() []int64 { return nil },
			log: slog.New(slog.DiscardHandler)}
	}
	from := &giving{acknowledged{steps: map[string][]int64{}}, layout}
	for step := int64(1); step <= 6; step++ {
		s, _ := from.fetch(t.Context(), "", "", step, "")
		if _, err := archiveOn(nil).write(t.Context(), job.Job{Spec: one.members.job().Spec}, 1, s); err != nil {
			t.Fatal(err)
		}
	}
	one.saver.source, one.saver.sink, one.steps.last = from, archiveOn(fullFS{dir: dir, room: room}), 40
	<-time.After(time.Hour) // since the term began
	return one, events, dir
}

// due has a member offer the state of step 40 for a while.
func (t *term) due(of *testing.T, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		t.says(of, &proto.Status{Member: "a", Generation: 1, Step: 40,
			Due: []*proto.HeldState{heldState(40, "right", 1)}})
		select {
		case in := <-t.inputs:
			if _, err := t.take(of.Context(), in); err != nil {
				of.Fatal(err)
			}
		case <-time.After(time.Second):
		}
	}
	t.tasks.Wait()
}

// TestAFullDiskIsPruned: as a term begins, and after a save that found no room.
func TestAFullDiskIsPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, events, dir := withFullDisk(t, 6)
		one.due(t, 2*saveRetry)
		if names := checkpointsIn(dir); len(names) != 1 || one.saver.durable.Step != 40 || len(events.warnings()) != 1 {
			t.Errorf("step %d is durable, of %v; warned %q", one.saver.durable.Step, names, events.warnings())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		one, _, dir := withFullDisk(t, 6)
		one.members.view.World = nil // nothing but the start of the term
		clear(one.members.followers)
		one.views.newest = func() (cluster.View, <-chan struct{}) { return one.members.view, nil }
		ctx, stop := context.WithTimeout(t.Context(), tickEvery/2)
		defer stop()
		if err := one.run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		one.tasks.Wait()
		if names := checkpointsIn(dir); len(names) != 1 || !strings.HasPrefix(names[0], "step-00000006") {
			t.Errorf("a new term leaves %v, want the newest", names)
		}
	})
}

// TestAFullDiskIsNotSaidAllTheTime: it stays full, and the user learns of it every ten minutes.
func TestAFullDiskIsNotSaidAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, events, _ := withFullDisk(t, 0)
		one.due(t, time.Hour)
		if said := events.warnings(); len(said) < 5 || len(said) > 7 || !strings.Contains(said[0], "no space left") {
			t.Errorf("in an hour %d warnings: %.1000q", len(said), said)
		}
	})
}
