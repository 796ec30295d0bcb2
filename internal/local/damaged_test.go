package local_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"evenweave/checkpoint"
	"evenweave/internal/progress"
)

// TestTheNewestCheckpointIsDamaged: a coordinator that finds less on its disk than etcd's records call durable leads
// all the same, and says so: with members that hold newer states these are saved; fresh ones go back to the older
// checkpoint. It refuses only a directory that has never had the checkpoint, when no member may hold its state. The
// job's record says what is durable, too, if the world's is lost.
func TestTheNewestCheckpointIsDamaged(t *testing.T) {
	const steps, durable = 1000, 150
	want := calmRun(t, steps)
	for _, c := range []struct{ removed, gone, lost bool }{{false, false, false}, {false, true, false},
		{true, false, false}, {true, true, false}, {true, false, true}, {true, true, true}} {
		t.Run(fmt.Sprintf("removed %v, members gone %v, world lost %v", c.removed, c.gone, c.lost), func(t *testing.T) {
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
			if c.lost {
				forget(t, endpoint, "/evenweave/test/world")
			}

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

// forget removes a key from etcd.
func forget(t *testing.T, endpoint, key string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if r, err := c.Delete(t.Context(), key); err != nil || r.Deleted != 1 {
		t.Fatal(r, err)
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
