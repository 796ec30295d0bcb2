package worker

import (
	"testing"

	"evenweave/internal/state"
)

// TestACopyLeavesOthersTheirSteps: a reader that needs a copy of a newer state takes no step from one that has all up
// to there. The copy stands while the steps since are kept.
func TestACopyLeavesOthersTheirSteps(t *testing.T) {
	l := newUpdateLog()
	commit := func(step int64) { l.commits(&update{step: step, words: make([]int64, 1)}, 0) }
	l.most = 3 * 8 // three steps
	l.wanted = true
	commit(1)
	if c := l.begin(1, state.Fingerprint{}); c == nil {
		t.Fatal("no copy is made for the first reader")
	}
	for step := int64(2); step <= 5; step++ {
		commit(step)
	}
	if l.copied != nil {
		t.Fatal("the copy stands, and a step since is not kept")
	}
	l.wanted = true // by a second reader, while the first has read all steps up to 5
	commit(6)
	second := l.begin(6, state.Fingerprint{})
	if u, err := (&logReader{updateLog: l}).next(t.Context(), 6); err != nil || u.step != 6 {
		t.Errorf("the first reader gets %v, %v instead of step 6", u, err)
	}
	for step := int64(7); step <= 9; step++ {
		if commit(step); l.copied != second {
			t.Fatalf("the copy of step 6 is dropped at step %d, and all steps since are kept", step)
		}
	}
	if commit(10); l.copied != nil {
		t.Error("the copy of step 6 stands, and step 7 is not kept")
	}
}
