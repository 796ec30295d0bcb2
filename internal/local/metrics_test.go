package local_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"evenweave"
	"evenweave/coordinator"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/worker"
)

// measuring is the tiny model with two numbers of its own instead of accuracy.
type measuring struct{ tinyTask }

var measures = []string{"bits/byte", "mae"}

func (m measuring) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, err := m.tinyTask.Gradients(b, grads)
	sums.Metrics = []int64{3 * sums.Weight, -5*sums.Weight - 1}
	return sums, err
}

func (m measuring) Evaluate(context.Context, evenweave.Data) ([]evenweave.Figure, error) {
	return []evenweave.Figure{{Name: "mae", Value: 0.25, Better: evenweave.Lower},
		{Name: "perplexity", Value: 12.5, Better: evenweave.Lower}}, nil
}

// recorded is what metrics.jsonl holds.
func recorded(t *testing.T, dir string) (all []progress.Record) {
	t.Helper()
	damaged, err := progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"),
		func(r progress.Record) { all = append(all, r) })
	if err != nil || damaged.Lines > 0 {
		t.Fatal(err, damaged)
	}
	return all
}

// TestMetricsGoByTheirNames: from the model, over the ring and the members' reports, to events and metrics.jsonl.
func TestMetricsGoByTheirNames(t *testing.T) {
	endpoint, dir := etcd(t), t.TempDir()
	s := spec(60)
	s.MicroBatch = s.GlobalBatch
	c := startCoordinator(t, endpoint, dir, s, func(cfg *coordinator.Config) {
		cfg.MetricNames, cfg.Model, cfg.HeldOut = measures, measuring{tinyTask{example.NewSoftmax()}}, nil
	})
	w := hire(endpoint, "w", false, func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: measuring{tinyTask{example.NewSoftmax()}}, Data: example.Points{},
				Numerics: golden},
			nil
	}, func(cfg *worker.Config) { cfg.MetricNames = measures })
	ended(t, "coordinator", c.done, nil)
	ended(t, "worker", w.done, nil)
	d := await(t, c.events, "the end", anyOf[progress.Done])
	if mae, ok := progress.Find(d.Figures, "mae"); !ok || mae != 0.25 || len(d.Figures) != 2 {
		t.Errorf("the end has the figures %v", d.Figures)
	}
	records := recorded(t, dir)
	if len(records) < 60 {
		t.Fatal(len(records))
	}
	for _, r := range records {
		if e, ok := r.Event.(progress.Step); ok {
			bits, one := e.Metric("bits/byte")
			mae, two := e.Metric("mae")
			if !one || !two || bits != 3 || mae != -5-1.0/32 || len(e.Metrics) != 2 {
				t.Fatalf("step %d has the metrics %v", e.Step, e.Metrics)
			}
		}
	}
	wholeCurve(t, dir, 60)
}

// TestAnotherCountOfMetricsIsRefused: a worker's reports that do not fit the coordinator's task are dropped, and named.
func TestAnotherCountOfMetricsIsRefused(t *testing.T) {
	endpoint := etcd(t)
	c := startCoordinator(t, endpoint, t.TempDir(), spec(endless), func(cfg *coordinator.Config) {
		cfg.MetricNames = append(example.Metrics(), "another")
	})
	w := startWorker(endpoint, "w", near(c.events))
	warning := await(t, c.events, "the warning", func(e progress.Warning) bool {
		return strings.Contains(e.Message, "w") && strings.Contains(e.Message, "1 metrics: the task has 2")
	})
	t.Log(warning.Message)
	c.resign()
	ended(t, "coordinator", c.done, nil)
	w.kill()
	ended(t, "worker", w.done, context.Canceled)
}
