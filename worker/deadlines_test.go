package worker

import (
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/policy"
)

// TestAConnectFailureIsReportedFirst: under every backoff a pair without a stream reports that before the other members
// accuse each other, although their deadlines are those of fast steps.
func TestAConnectFailureIsReportedFirst(t *testing.T) {
	for backoff := range 4 {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, 10000)
			ids := []string{"a", "b", "c", "d"}
			for _, id := range ids {
				c.start(id, 1, nil)
			}
			c.publish(false, ids...)
			for _, id := range ids {
				c.members[id].until(5)
			}
			c.mu.Lock()
			c.backoff, c.parted = backoff, [2]string{"a", "b"}
			c.mu.Unlock()
			c.publish(false, ids...)
			spoke := map[string]bool{}
			for len(spoke) == 0 {
				for _, id := range ids {
					if s, _ := c.members[id].report.read(0); s.Generation == 2 && s.Accusation != nil &&
						s.Accusation.Kind != policy.KindWaiting {
						spoke[id] = true
						if s.Accusation.Kind != "unreachable" {
							t.Errorf("backoff %d: %s speaks first: %v", backoff, id, s.Accusation)
						}
					}
				}
				time.Sleep(10 * time.Millisecond) // virtual
			}
			c.kill()
		})
	}
}

// TestALargeStateIsWaitedForInTheOpening: a joiner may write and hash a large state for longer than a small one is
// waited for.
func TestALargeStateIsWaitedForInTheOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 30)
		c.size = 12 << 30
		a := c.start("a", 1, nil)
		c.start("b", 1, nil)
		c.publish(false, "a", "b")
		a.until(10)
		c.start("late", 1, nil).model.writes = func() { time.Sleep(6 * time.Second) } // virtual
		c.publish(true, "a", "b", "late")
		c.finish("a", "b", "late")
		if g := c.view.World.Generation; g != 2 {
			t.Errorf("a joiner that writes its state for 6 s made %d generations of one", g-1)
		}
	})
}

// TestAJoinerKnowsHowLongStepsAre: one that has caught up waits in its first step as long as the others would, though
// it has seen no step and computes faster.
func TestAJoinerKnowsHowLongStepsAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 8)
		c.catchUp = true
		slow := func(*evenweave.Batch) { time.Sleep(10 * time.Second) } // virtual: 40 s a step of two
		c.start("a", 1, slow)
		c.start("b", 1, slow)
		c.publish(false, "a", "b")
		time.Sleep(3 * time.Minute)
		s := c.start("s", 1, nil)
		s.ready()
		c.publish(true, "a", "b", "s")
		c.finish("a", "b", "s")
		if g := c.view.World.Generation; g != 2 {
			t.Errorf("a joiner that has seen no step of 40 s made %d generations of one", g-1)
		}
	})
}
