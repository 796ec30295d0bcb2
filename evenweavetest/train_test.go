package evenweavetest

import (
	"os"
	"testing"
)

// A run's last line is read whole, and what is none is refused.
func TestResultOf(t *testing.T) {
	r, err := resultOf([]byte(`{"event":"done","step":5,"epoch":1,"workers":2,"generation":3,` +
		`"weights_sha256":"ab","figures":[{"name":"a","value":1}]}`))
	if err != nil || r.Step != 5 || r.Epoch != 1 || r.Workers != 2 || r.Generation != 3 || r.Weights != "ab" {
		t.Errorf("%+v, %v", r, err)
	}
	for _, line := range []string{"", "x", `{"event":"step"}`, `{"event":"done"}`} {
		if _, err := resultOf([]byte(line)); err == nil {
			t.Errorf("%q is taken for a run's end", line)
		}
	}
}

func TestClearVariables(t *testing.T) {
	for name, stays := range map[string]bool{"EVENWEAVE_WORKERS": false, "EVENWEAVE_UNKNOWN": false,
		"EVENWEAVE_TEST_X": true, "OTHER_X": true} {
		t.Setenv(name, "1")
		ClearVariables()
		if _, there := os.LookupEnv(name); there != stays {
			t.Errorf("%s is there: %v, want %v", name, there, stays)
		}
	}
}

func TestFiguresOf(t *testing.T) {
	f := figuresOf([]byte(`{"event":"evaluation","figures":[{"name":"mae","value":0.5},{"name":"loss","value":2}]}`))
	if len(f) != 2 || f["mae"] != 0.5 || f["loss"] != 2 {
		t.Errorf("figures %v", f)
	}
	if f := figuresOf([]byte(`{"event":"step","figures":[{"name":"mae","value":0.5}]}`)); f != nil {
		t.Errorf("a step has figures %v", f)
	}
}

func TestWorkerOf(t *testing.T) {
	for line, want := range map[string]int{
		"": 0, `{"event":"step"}`: 0, `{"event":"world","members":[]}`: 0,
		`{"event":"world","members":[{"id":"a","pid":7},{"id":"b","pid":8}]}`: 8,
	} {
		if pid := workerOf([]byte(line)); pid != want {
			t.Errorf("%s: %d, want %d", line, pid, want)
		}
	}
}
