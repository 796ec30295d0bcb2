package worker

import (
	"testing"
	"testing/synctest"
	"time"

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
