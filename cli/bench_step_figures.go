package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"evenweave/worker"
)

// stepFigures are medians over the steps, in milliseconds of the mean worker.
type stepFigures struct {
	Event       string             `json:"event"` // "bench_step"
	Time        time.Time          `json:"time"`
	Task        string             `json:"task"`
	Backend     string             `json:"backend"`
	Workers     int                `json:"workers"`
	Parallelism int                `json:"parallelism"`
	GlobalBatch int                `json:"global_batch"`
	MicroBatch  int                `json:"micro_batch"`
	Samples     float64            `json:"samples_per_second"`
	StepMS      float64            `json:"step_ms"`
	PartsMS     map[string]float64 `json:"parts_ms"`
	Overhead    float64            `json:"overhead_percent"` // all but loading, gradients, update and wait
	CPUMS       float64            `json:"cpu_ms"`           // of a worker, a step
	MemoryMB    float64            `json:"memory_mb"`        // the most that a worker held
}

// parts are those that are printed, in the order of a step.
var parts = []struct {
	name string
	of   func(worker.Parts) time.Duration
}{
	{"load", func(p worker.Parts) time.Duration { return p.Load }},
	{"gradients", func(p worker.Parts) time.Duration { return p.Gradients }},
	{"quantise", func(p worker.Parts) time.Duration { return p.Quantise }},
	{"fingerprint", func(p worker.Parts) time.Duration { return p.Fingerprint }},
	{"reduce", func(p worker.Parts) time.Duration { return p.Reduce }},
	{"wait", func(p worker.Parts) time.Duration { return p.Wait }},
	{"mean", func(p worker.Parts) time.Duration { return p.Mean }},
	{"update", func(p worker.Parts) time.Duration { return p.Update }},
}

func (b *stepBench) figures(backend string, steps [][]memberReport) stepFigures {
	f := stepFigures{Event: "bench_step", Time: time.Now(), Task: b.program.task.Name, Backend: backend,
		Workers: b.workers, Parallelism: b.parallelism, GlobalBatch: b.spec.GlobalBatch, MicroBatch: b.spec.MicroBatch,
		PartsMS: map[string]float64{}}
	measured := steps[warmUp:]
	middle := func(of func(worker.Parts) time.Duration) float64 {
		var each []float64
		for _, s := range measured {
			sum := 0.0
			for _, r := range s {
				sum += float64(of(r.Parts)) / 1e6
			}
			each = append(each, sum/float64(len(s)))
		}
		slices.Sort(each)
		return each[len(each)/2]
	}
	f.StepMS = middle(func(p worker.Parts) time.Duration { return p.Step })
	f.Samples = 1e3 * float64(b.spec.GlobalBatch) / f.StepMS
	for _, p := range parts {
		f.PartsMS[p.name] = middle(p.of)
	}
	work := f.PartsMS["load"] + f.PartsMS["gradients"] + f.PartsMS["update"]
	other := f.PartsMS["quantise"] + f.PartsMS["fingerprint"] + f.PartsMS["reduce"] + f.PartsMS["mean"]
	f.Overhead = 100 * other / (work + other)
	before, last := steps[warmUp-1], steps[len(steps)-1]
	for rank, r := range last {
		f.CPUMS += float64(r.CPU-before[rank].CPU) / 1e6 / float64(len(measured)*len(last))
		f.MemoryMB = max(f.MemoryMB, float64(r.Memory)/1e6)
	}
	return f
}

func (b *stepBench) write(out io.Writer, backend string, steps [][]memberReport) error {
	f := b.figures(backend, steps)
	if *b.output == "json" {
		return json.NewEncoder(out).Encode(f)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, ms float64) { fmt.Fprintf(w, "%s\t%.2f ms\t%.1f %%\t\n", name, ms, 100*ms/f.StepMS) }
	row("step", f.StepMS)
	for _, p := range parts {
		row(p.name, f.PartsMS[p.name])
	}
	fmt.Fprintf(w, "overhead\t%.1f %%\t\t\n", f.Overhead)
	fmt.Fprintf(w, "processor time\t%.2f ms\t\t\n", f.CPUMS)
	fmt.Fprintf(w, "samples\t%.1f /s\t\t\n", f.Samples)
	fmt.Fprintf(w, "memory\t%.0f MB\t\t\n", f.MemoryMB)
	return w.Flush()
}
