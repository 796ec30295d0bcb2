package bench

import (
	"math"
	"testing"
)

func TestFitFindsTheModel(t *testing.T) {
	const a, b, n = 0.020, 0.5e-6, 4 // ms a hop, ms a byte
	var rows []Row
	for _, bytes := range []int{1000, 100_000, 10_000_000} {
		rows = append(rows, Row{Workers: n, Bytes: bytes, Millis: 2 * (n - 1) * (a + b*float64(bytes)/n)})
	}
	m, ok := fit(rows)
	if !ok || math.Abs(m.HopMicros-20) > 1e-6 || math.Abs(m.ByteNanos-0.5) > 1e-6 || math.Abs(m.Crossing-160_000) > 1 {
		t.Errorf("got %+v", m)
	}
	if _, ok := fit(rows[:1]); ok {
		t.Error("a model was fitted to one row")
	}
}
