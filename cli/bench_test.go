package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"evenweave/allreduce/bench"
	"evenweave/internal/example"
	"evenweave/internal/schedule"
	"evenweave/worker"
)

// TestBenchAllreduceTakesTheTask: it measures what a step of the task sums, for each world; --bytes are other sizes.
func TestBenchAllreduceTakesTheTask(t *testing.T) {
	rows := func(args ...string) (all []bench.Row) {
		t.Helper()
		args = append([]string{"bench", "allreduce", "-o", "json", "--net", "lan", "--workers", "2,3"}, args...)
		out, err := command(t, args...).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			var r bench.Row
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if r.Event == "allreduce" {
				all = append(all, r)
			}
		}
		return all
	}
	found := rows("--global-batch", "96", "--micro-batch", "8")
	if len(found) != 2 {
		t.Fatalf("rows %+v", found)
	}
	for i, r := range found {
		want, err := worker.StepBytes(example.NewSoftmax().Tensors(), 1,
			schedule.Plan{GlobalBatch: 96, MicroBatch: 8}, i+2)
		if err != nil || r.Workers != i+2 || r.Bytes != want || r.Task != "tiny" {
			t.Errorf("%+v, expected %d bytes: %v", r, want, err)
		}
	}
	if found = rows("--bytes", "1K,8K"); len(found) != 4 || found[0].Bytes != 1000 || found[0].Task != "" {
		t.Errorf("rows of --bytes: %+v", found)
	}
	err := Run(t.Context(), tiny(), "bench", "allreduce", "--net", "lan", "--points", "0")
	if exitCode(err) != exitUsage || !strings.Contains(err.Error(), "--points") {
		t.Errorf("a bad option of the task: %v", err)
	}
}
