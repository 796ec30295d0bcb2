package local_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/progress"
)

// TestTheNewestCheckpointIsDamaged: a coordinator that finds less on its disk than etcd's records call durable leads
// all the same, and says so: with members that hold newer states these are saved; fresh ones go back to the older
// checkpoint. It refuses only a directory that has never had the checkpoint, when no member may hold its state.
func TestTheNewestCheckpointIsDamaged(t *testing.T) {
	const steps, durable = 1000, 150
	want := calmRun(t, steps)
	for _, c := range []struct{ removed, gone bool }{{false, false}, {false, true}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("removed %v, members gone %v", c.removed, c.gone), func(t *testing.T) {
			endpoint, dir := etcd(t), t.TempDir()
			first := startCoordinator(t, endpoint, dir, spec(steps))
			later := make(chan struct{})
			held := gated(func(step int64) {
				if step >= durable+20 {
					<-later
				}
			})
			a := startWorker(endpoint, "a", held)
			await(t, first.events, "the checkpoint", func(c progress.Checkpoint) bool { return c.Step == durable })
			b := startWorker(endpoint, "b", held)
			await(t, first.events, "a world that names it", func(w progress.World) bool { return w.Size == 2 })
			first.resign()
			<-first.done
			if c.gone {
				a.kill()
				b.kill()
			}
			close(later)
			if c.gone {
				<-a.done
				<-b.done
			}
			spoil(t, dir, durable, c.removed)

			second := startCoordinator(t, endpoint, dir, spec(steps))
			if c.removed && c.gone {
				select {
				case err := <-second.done:
					if err == nil || !strings.Contains(err.Error(), "that the directory") {
						t.Errorf("a directory that lacks the checkpoint: %v", err)
					}
				case <-time.After(deadline):
					t.Error("a coordinator leads on a directory that lacks the checkpoint")
					second.resign()
					<-second.done
				}
				return
			}
			if c.gone {
				a, b = startWorker(endpoint, "c", open), startWorker(endpoint, "d", open)
			}
			ended(t, "the second coordinator", second.done, nil)
			ended(t, "a", a.done, nil)
			ended(t, "b", b.done, nil)
			d := await(t, second.events, "the end", anyOf[progress.Done])
			if d.Fingerprint != want.Fingerprint || d.Step != steps || !d.Complete {
				t.Errorf("ended with %+v, a calm run with %+v", d, want)
			}
			wholeCurve(t, dir, steps)
			w := await(t, second.events, "a warning",
				func(w progress.Warning) bool { return strings.Contains(w.Message, "damaged or gone") })
			if contains(w.Message, "members that hold newer states") == c.gone {
				t.Errorf("warned: %s", w.Message)
			}
		})
	}
}

// spoil damages or removes the checkpoint of a step, the newest one.
func spoil(t *testing.T, dir string, step int64, remove bool) {
	t.Helper()
	newest, err := checkpoint.Newest(t.Context(), dir, nil)
	if err != nil || newest.Step != step {
		t.Fatal(newest, err)
	}
	spoilt := os.Remove
	if !remove {
		spoilt = func(path string) error { return os.Truncate(path, 100) }
	}
	if err := spoilt(newest.Path); err != nil {
		t.Fatal(err)
	}
}
