package progress

import "time"

const (
	rateWindow  = 30 * time.Second // the span of steps that the speed is measured over,
	ratePoints  = 11               // at least this many steps, if steps are slow
	rateSettle  = time.Second      // the least span of a new window that replaces the old speed
	recentSteps = 20               // loss and metrics are means of these: one batch alone is noisy
	stallFloor  = 3 * time.Second
)

// meter measures speed over a moving window of committed steps, and averages their loss and metrics. A stall, a
// resume, a clock that goes back and a new world each open a new window, so that neither the pause nor the old world's
// speed enters the new figure. Until the new window has settled, the old speed is shown.
type meter struct {
	points []point
	kept   speed
	recent []Step
}

type point struct {
	at     time.Time
	step   int
	images int64
}

// speed is per second; zero: unknown.
type speed struct{ images, steps float64 }

func (m *meter) add(at time.Time, s Step) {
	if n := len(m.points); n > 0 {
		last := m.points[n-1]
		if s.Step <= last.step {
			m.recent = nil
		}
		if s.Step <= last.step || at.Before(last.at) || at.Sub(last.at) > m.stallAfter() {
			m.reset()
		}
	}
	m.points = append(m.points, point{at, s.Step, s.Images})
	for len(m.points) > ratePoints && at.Sub(m.points[0].at) > rateWindow {
		m.points = m.points[1:]
	}
	if s.Skipped == "" {
		m.recent = append(m.recent, s)
	}
	if len(m.recent) > recentSteps {
		m.recent = m.recent[1:]
	}
}

// reset opens a new window.
func (m *meter) reset() {
	m.kept = m.speed()
	m.points = nil
}

func (m *meter) speed() speed {
	if len(m.points) < 2 {
		return m.kept
	}
	first, last := m.points[0], m.points[len(m.points)-1]
	elapsed := last.at.Sub(first.at)
	if elapsed <= 0 || m.kept != (speed{}) && elapsed < rateSettle {
		return m.kept
	}
	return speed{
		images: float64(last.images-first.images) / elapsed.Seconds(),
		steps:  float64(last.step-first.step) / elapsed.Seconds(),
	}
}

// stallAfter is how long a step may take before it counts as a stall.
func (m *meter) stallAfter() time.Duration {
	s := m.speed().steps
	if s <= 0 {
		return time.Hour
	}
	return max(stallFloor, time.Duration(5/s*float64(time.Second)))
}

// eta is the time of the remaining steps at the present speed; false: unknown.
func (m *meter) eta(remaining int) (time.Duration, bool) {
	s := m.speed().steps
	if s <= 0 || remaining < 0 {
		return 0, false
	}
	seconds := float64(remaining) / s
	if seconds > (10000 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// means are the loss and the metrics over the last recentSteps steps.
func (m *meter) means() (loss float64, metrics []Metric) {
	n := float64(len(m.recent))
	for _, s := range m.recent {
		loss += s.Loss / n
	}
	if n == 0 {
		return loss, nil
	}
	for _, named := range m.recent[len(m.recent)-1].Metrics {
		mean := Metric{Name: named.Name}
		for _, s := range m.recent {
			value, _ := s.Metric(named.Name)
			mean.Value += value / n
		}
		metrics = append(metrics, mean)
	}
	return loss, metrics
}
