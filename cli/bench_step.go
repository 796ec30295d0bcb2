package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave/internal/job"
	"evenweave/internal/processors"
	"evenweave/worker"
)

// stepBench is a call of `bench step`.
type stepBench struct {
	specFlags
	workers, parallelism int
	pin                  bool
	output               string
}

// warmUp steps are not counted: they fill pools and caches.
const warmUp = 2

func (p *program) benchStepCommand() *cobra.Command {
	b := &stepBench{}
	b.program, b.keep = p, 1
	cmd := &cobra.Command{Use: "step", Args: noArgs, Short: "Measure the parts of a training step of the task",
		Long: `Trains some steps as processes of this machine, without etcd, a coordinator and checkpoints, and prints the median time of
each part: loading, gradients, quantising, fingerprints, the sum and the wait in it, the mean, the update. Overhead is all but
loading, gradients and update, in percent of all without the wait; memory is the most that a worker held.`}
	f := cmd.Flags()
	f.Int64Var(&b.spec.Steps, "steps", 10, "steps to measure, beside 2 before them")
	f.Uint64Var(&b.spec.Seed, "seed", 1, "decides every random number: order, weights, dropout")
	f.IntVar(&b.spec.GlobalBatch, "global-batch", 128, "samples of one step, whatever the number of workers")
	f.IntVar(&b.spec.MicroBatch, "micro-batch", 16, "samples of one unit of work; must divide the global batch")
	p.defaults(f)
	f.Lookup("steps").DefValue, b.spec.Steps, b.spec.Epochs = "10", 10, 1
	f.IntVar(&b.workers, "workers", 1, "processes that train together")
	f.IntVar(&b.parallelism, "parallelism", 1, "micro-batches that each computes side by side")
	f.BoolVar(&b.pin, "pin", true, "each worker on processors of its own")
	p.backendFlag(f, &b.backend)
	dataFlag(f, &b.data)
	p.optionFlags(f, everyOption)
	f.StringVarP(&b.output, "output", "o", "text", "text, or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		return unlessInterrupted(ctx, b.run(ctx, cmd.OutOrStdout()))
	}
	return cmd
}

func (b *stepBench) check() error {
	if b.workers < 1 || b.parallelism < 1 || b.spec.Steps < 1 {
		return usagef("--workers, --parallelism and --steps must be at least 1")
	}
	if v := b.spec.GlobalBatch / max(1, b.spec.MicroBatch); b.workers > v {
		return usagef("--workers %d: a step has %d micro-batches", b.workers, v)
	}
	return errors.Join(b.specFlags.check(), checkOutput(b.output))
}

// memberSetup is what a process of the benchmark gets on its standard input.
type memberSetup struct {
	Job         job.Job
	Rank, Size  int
	Sockets     string
	Parallelism int
	Data        string
}

// memberReport is what it writes: an empty one when it is ready, then one for each step.
type memberReport struct {
	Parts  worker.Parts
	CPU    time.Duration // of the process, so far
	Memory int64         // the most bytes that it held
}

func (b *stepBench) run(ctx context.Context, out io.Writer) error {
	if err := b.check(); err != nil {
		return err
	}
	_, err := b.prepare(ctx)
	if err != nil {
		return err
	}
	sets, err := b.program.task.Data(b.data)
	if err != nil {
		return err
	}
	measured := b.spec.Steps
	b.spec.Steps += warmUp
	if err := b.complete(sets.Train); err != nil {
		return err
	}
	backend, _, err := b.program.resolveBackend(b.backend)
	if err != nil {
		return err
	}
	sockets, err := os.MkdirTemp("", "evenweave-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	members, err := b.start(ctx, memberSetup{Job: job.Job{UUID: "bench", Spec: b.spec, Backend: backend},
		Size: b.workers, Sockets: sockets, Parallelism: b.parallelism, Data: b.data})
	defer func() {
		for _, t := range members {
			t.end()
		}
	}()
	if err != nil {
		return err
	}
	var steps [][]memberReport // by step, by rank
	for range warmUp + measured {
		var all []memberReport
		for rank, t := range members {
			var r memberReport
			if err := t.read(&r); err != nil {
				return fmt.Errorf("rank %d: %w", rank, err)
			}
			all = append(all, r)
		}
		steps = append(steps, all)
	}
	return b.write(out, backend, steps)
}

// stepMember is a process of the benchmark.
type stepMember struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (t *stepMember) read(r *memberReport) error { return t.out.Decode(r) }

func (t *stepMember) end() {
	_ = t.in.Close()
	_ = t.cmd.Wait()
}

// start runs the processes, and lets them train when all are ready.
func (b *stepBench) start(ctx context.Context, s memberSetup) (all []*stepMember, err error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "step-member"}
	for name, value := range b.program.optionSettings(ownOption) {
		args = append(args, "--"+name+"="+value)
	}
	for rank := range s.Size {
		t := &stepMember{cmd: exec.CommandContext(ctx, executable, args...)}
		t.cmd.Stderr = os.Stderr
		if t.in, err = t.cmd.StdinPipe(); err != nil {
			return all, err
		}
		out, err := t.cmd.StdoutPipe()
		if err != nil {
			return all, err
		}
		t.out = json.NewDecoder(bufio.NewReader(out))
		var own []int
		if b.pin {
			own = processors.Share(processors.Available(), s.Size, rank)
		}
		if err := processors.Start(t.cmd, own); err != nil {
			return all, fmt.Errorf("starting rank %d: %w", rank, err)
		}
		all = append(all, t)
		s.Rank = rank
		if err := json.NewEncoder(t.in).Encode(s); err != nil {
			return all, fmt.Errorf("rank %d: %w", rank, err)
		}
	}
	for rank, t := range all {
		if err := t.read(&memberReport{}); err != nil {
			return all, fmt.Errorf("rank %d did not start: %w", rank, err)
		}
	}
	for _, t := range all {
		if _, err := io.WriteString(t.in, "{}\n"); err != nil {
			return all, err
		}
	}
	return all, nil
}

// benchStepMemberCommand is a process of bench step. It ends when its standard input does.
func (p *program) benchStepMemberCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "step-member", Hidden: true, Args: noArgs, Short: "Be one worker of a benchmark"}
	p.optionFlags(cmd.Flags(), ownOption)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // as a worker
		in := json.NewDecoder(os.Stdin)
		var s memberSetup
		if err := in.Decode(&s); err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		opened, err := p.openJob(s.Data, log)(ctx, s.Job)
		if err != nil {
			return err
		}
		defer opened.Model.Close()
		train, stop, err := worker.Measurement{Job: s.Job, Rank: s.Rank, Size: s.Size, Sockets: s.Sockets,
			Parallelism: s.Parallelism, MetricNames: p.task.Metrics, Opened: opened, Log: log}.Open()
		if err != nil {
			return err
		}
		defer stop()
		out := json.NewEncoder(cmd.OutOrStdout())
		if err := out.Encode(memberReport{}); err != nil {
			return err
		}
		if err := in.Decode(&struct{}{}); err != nil { // the word to begin
			return err
		}
		go func() { // its end, while this trains
			_ = in.Decode(&struct{}{})
			cancel()
		}()
		return train(ctx, func(parts worker.Parts) error {
			r := memberReport{Parts: parts}
			r.CPU, r.Memory = used()
			return out.Encode(r)
		})
	}
	return cmd
}

// used is this process's processor time, and the most memory that it has held.
func used() (cpu time.Duration, memory int64) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	memory = int64(u.Maxrss)
	if runtime.GOOS == "linux" {
		memory <<= 10
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), memory
}

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
	if b.output == "json" {
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
