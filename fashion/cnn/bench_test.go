package cnn

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

func TestBenchReportsWhatItMeasured(t *testing.T) {
	var out bytes.Buffer
	o := BenchOptions{Backend: "go", MicroBatch: 1, Batch: 3, Parallelism: 2, Duration: time.Millisecond, JSON: true}
	if err := Bench(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	var r BenchResult
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Event != "bench" || r.Backend != "go" || r.ImagesPerSecond <= 0 || r.StepImages <= 0 || r.GemmGFLOPS <= 0 ||
		r.UpdateMS <= 0 || r.Share <= 0 {
		t.Errorf("result %+v", r)
	}
	stopped, stop := context.WithCancelCause(t.Context())
	reason := errors.New("stopped")
	stop(reason)
	if err := Bench(stopped, o, &out); !errors.Is(err, reason) {
		t.Errorf("a stopped benchmark returned %v", err)
	}
}
