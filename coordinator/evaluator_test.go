package coordinator

import (
	"testing"

	"evenweave/progress"
)

// The best checkpoint is chosen on the held-out samples alone; a restarted coordinator chooses the same from its record.
func TestBestIsChosenOnHeldOutSamples(t *testing.T) {
	held := func(step int, test, accuracy, loss float64) progress.Record {
		return progress.Record{Event: progress.Evaluation{Step: step, TestAccuracy: test, HoldoutAccuracy: &accuracy, HoldoutLoss: &loss}}
	}
	e := newEvaluations([]progress.Record{held(10, 0.99, 0.80, 0.5), held(20, 0.80, 0.90, 0.4), held(30, 0.95, 0.90, 0.3), held(40, 0.97, 0.90, 0.3)})
	if step, ok := e.best(); !ok || step != 30 {
		t.Errorf("best is step %d, %v; want 30: highest accuracy, then lowest loss, then earliest", step, ok)
	}
	if step, ok := newEvaluations([]progress.Record{{Event: progress.Evaluation{Step: 10, TestAccuracy: 0.9}}}).best(); ok {
		t.Errorf("best is step %d without held-out samples: the test set may not choose", step)
	}
}
