package progress

import (
	"math"
	"testing"
	"time"
)

// run adds steps that each take the same time, and returns when the last ended.
func (m *meter) run(at time.Time, from, to int, each time.Duration) time.Time {
	for s := from; s <= to; s++ {
		at = at.Add(each)
		m.add(at, Step{Step: s, Images: int64(s) * 100, Loss: float64(s)})
	}
	return at
}

func (m *meter) wants(t *testing.T, when string, images float64) {
	t.Helper()
	if got := m.speed().images; math.Abs(got-images) > images/100 {
		t.Errorf("%s: %.1f images/s, want %.1f", when, got, images)
	}
}

func TestMeterFollowsTheSpeed(t *testing.T) {
	var m meter
	if _, ok := m.eta(100); ok {
		t.Error("an ETA before any step")
	}
	at := m.run(noon, 1, 1000, 100*time.Millisecond)
	m.wants(t, "steady", 1000)
	if eta, ok := m.eta(600); !ok || eta.Round(time.Second) != time.Minute {
		t.Errorf("ETA %s, %v, want a minute", eta, ok)
	}
	if len(m.points) > 400 {
		t.Errorf("%d points are kept for a window of 30 s", len(m.points))
	}
	at = m.run(at.Add(time.Minute), 1001, 1003, 100*time.Millisecond)
	m.wants(t, "just after a stall", 1000)
	at = m.run(at, 1004, 1030, 100*time.Millisecond)
	m.wants(t, "after a stall", 1000)
	m.reset() // a new world
	at = m.run(at, 1031, 1033, 50*time.Millisecond)
	m.wants(t, "in a world that has not settled", 1000)
	at = m.run(at, 1034, 1080, 50*time.Millisecond)
	m.wants(t, "in a world twice as fast", 2000)
	at = m.run(at, 500, 560, 50*time.Millisecond)
	m.wants(t, "resumed from an older step", 2000)
	if loss, _ := m.means(); loss != 550.5 {
		t.Errorf("mean loss %g, want that of the last steps", loss)
	}
	m.run(at.Add(-time.Hour), 561, 600, 50*time.Millisecond)
	m.wants(t, "after the clock was set back", 2000)
}

func TestMeterOfSlowAndOfSimultaneousSteps(t *testing.T) {
	var slow, burst meter
	slow.run(noon, 1, 30, time.Minute)
	slow.wants(t, "a step a minute", 100./60)
	burst.run(noon, 1, 30, 0)
	if s := burst.speed(); s != (speed{}) {
		t.Errorf("steps without time gave the speed %v", s)
	}
}
