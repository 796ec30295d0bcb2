package cli

import (
	"strings"
	"testing"
)

// TestChaosCountsEpochs: a length in epochs is one in steps, which the data give; the faults are spread over them.
func TestChaosCountsEpochs(t *testing.T) {
	out := &strings.Builder{}
	err := run(t.Context(), tiny(), nil, out, []string{"chaos", "-o", "json", "--epochs", "3", "--dir",
		t.TempDir(), "--timeout", "1ns"}) // the faults are shown; no run begins
	if exitCode(err) != exitFailed || !strings.Contains(err.Error(), "--timeout") ||
		strings.Count(out.String(), `"event":"schedule"`) < 9 {
		t.Errorf("%v, after:\n%s", err, out)
	}
}
