package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave/internal/progress"
)

// A directory that holds nothing but the metrics has a report, too: that of a build before pages.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	metrics, err := progress.OpenMetrics(t.Context(), filepath.Join(dir, "metrics.jsonl"), func(progress.Record) {})
	if err != nil {
		t.Fatal(err)
	}
	for step := 1; step <= 20; step++ {
		metrics.Observe(progress.Record{Time: time.Now(), Event: progress.Step{Step: step, Epoch: 1,
			Loss: 1 / float64(step), Metrics: []progress.Metric{{Name: "mae", Value: 7}}}})
	}
	if err := metrics.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "report", "--dir", dir).Output()
	path := filepath.Join(dir, "report.html")
	if err != nil || string(out) != path+"\n" {
		t.Fatalf("%v: %s", err, out)
	}
	page, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(page), `[20,0,0,0,0.05,7]`) ||
		!strings.Contains(string(page), `"state":"recorded"`) {
		_, data, _ := strings.Cut(string(page), `id="data">`)
		t.Errorf("the report lacks the last step: %v\n%.2000s", err, data)
	}
}

func TestReportOfNothing(t *testing.T) {
	out, err := command(t, "report", "--dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "holds no run") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestThePageOfTrainIsOnLoopbackAlone(t *testing.T) {
	cmd := command(t, "train", "--http", "0.0.0.0:8080", "--dir", t.TempDir())
	out, _ := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), "loopback") {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}
