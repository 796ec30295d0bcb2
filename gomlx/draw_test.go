package gomlx

import (
	"math"
	"testing"

	"evenweave"
)

// TestDraw: each comes as often as softmax says, at any temperature; large logits are no overflow.
func TestDraw(t *testing.T) {
	logits := []float32{1000, 1001, 998, float32(math.Inf(-1))}
	const n = 20000
	if got := Draw(logits, 0, evenweave.NewGenerator(1)); got != 1 {
		t.Errorf("temperature 0: %d, expected the likeliest", got)
	}
	for _, temperature := range []float64{0.001, 0.5, 1, 100} {
		random, counts := evenweave.NewGenerator(1), [4]int{}
		for range n {
			counts[Draw(logits, temperature, random)]++
		}
		total := 0.0
		for _, l := range logits {
			total += math.Exp(float64(l-1001) / temperature)
		}
		for i, l := range logits {
			want := math.Exp(float64(l-1001)/temperature) / total
			if got := float64(counts[i]) / n; math.Abs(got-want) > 0.02 || want == 0 && got > 0 {
				t.Errorf("temperature %v: number %d came in %v of all draws, expected %v", temperature, i, got, want)
			}
		}
	}
}
