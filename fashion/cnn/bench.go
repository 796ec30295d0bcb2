package cnn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"evenweave"
	"evenweave/gomlx/backend"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// BenchOptions choose what Bench measures.
type BenchOptions struct {
	Backend     string        // as in Options
	MicroBatch  int           // samples of one gradient call
	Batch       int           // samples of one step: some calls and an update
	Parallelism int           // calls at the same time
	Duration    time.Duration // of the measurement; 0 means 5 s
	JSON        bool          // one JSON line instead of a table
}

// A BenchResult is what Bench found: medians of rounds that alternate between gradients, whole steps and a matrix
// product, so that all see the same machine.
type BenchResult struct {
	Event           string    `json:"event"` // "bench"
	Time            time.Time `json:"time"`
	Backend         string    `json:"backend"`
	MicroBatch      int       `json:"micro_batch"`
	Batch           int       `json:"batch"`
	Parallelism     int       `json:"parallelism"`
	ImagesPerSecond float64   `json:"images_per_second"`      // gradients, all calls together
	StepImages      float64   `json:"step_images_per_second"` // steps: gradients of a batch, added up, and an update
	GradientsMS     float64   `json:"gradients_ms"`           // one call, beside the others
	UpdateMS        float64   `json:"update_ms"`              // one update, alone
	GemmGFLOPS      float64   `json:"gemm_gflops"`            // matrix product, same parallelism
	LimitImages     float64   `json:"limit_images_per_second"`
	Share           float64   `json:"share"` // of that limit
	OpenSeconds     float64   `json:"open_seconds"`
}

// flopPerImage is what forward and backward take with convolutions done directly: each product once forward, twice
// backward, but for the gradient of the images. Winograd's method needs fewer, so the share of the limit set by a plain
// matrix product can pass 1.
const flopPerImage = 2 * (2*26*26*9*32 + 3*24*24*9*32*64 + 3*9216*10)

// Bench measures gradients and updates and writes a table or a JSON line.
func Bench(ctx context.Context, o BenchOptions, w io.Writer) error {
	r, err := bench(ctx, o)
	if err != nil {
		return err
	}
	if o.JSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err = fmt.Fprintf(w, `backend            %10s
micro-batch        %10d samples
parallelism        %10d calls at once
gradients          %10.0f images/s
whole steps        %10.0f images/s, one update for %d
one call           %10.2f ms
one update         %10.2f ms
matrix product     %10.1f GFLOP/s
limit              %10.0f images/s if direct convolution ran like that product
share of the limit %10.0f %%
ready after        %10.2f s
`, r.Backend, r.MicroBatch, r.Parallelism, r.ImagesPerSecond, r.StepImages, r.Batch, r.GradientsMS, r.UpdateMS, r.GemmGFLOPS, r.LimitImages, 100*r.Share, r.OpenSeconds)
	return err
}

func bench(ctx context.Context, o BenchOptions) (r BenchResult, err error) {
	if o.Parallelism < 1 {
		return r, fmt.Errorf("parallelism %d: must be at least 1", o.Parallelism)
	}
	if o.MicroBatch < 1 || o.Batch < 1 || o.Batch%o.MicroBatch != 0 {
		return r, fmt.Errorf("micro-batch %d of a batch of %d: must be at least 1, and divide it",
			o.MicroBatch, o.Batch)
	}
	if o.Duration <= 0 {
		o.Duration = 5 * time.Second
	}
	start := time.Now()
	m, err := Open(Options{Backend: o.Backend, MicroBatch: o.MicroBatch})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	opened := time.Since(start)
	device, err := m.device()
	if err != nil {
		return r, err
	}
	gemm, gemmFLOP, err := compileGemm(device)
	if err != nil {
		return r, err
	}
	defer gemm.Close()

	trainer := newBenchTrainer(m, o)
	matrix := make([]float32, gemmSide*gemmSide)

	const rounds = 5
	slice := o.Duration / (3*rounds + 1)
	var images, steps, products []float64 // calls a second, one a round
	for range rounds {
		rate, err := callRate(ctx, o.Parallelism, slice, trainer.gradients)
		if err != nil {
			return r, err
		}
		images = append(images, rate)
		if rate, err = callRate(ctx, 1, slice, func(int) error { return trainer.step() }); err != nil {
			return r, err
		}
		steps = append(steps, rate)
		rate, err = callRate(ctx, o.Parallelism, slice, func(int) error {
			return gemm.Run([]any{make([]float32, 1)}, []any{matrix})
		})
		if err != nil {
			return r, err
		}
		products = append(products, rate)
	}
	updates, err := callRate(ctx, 1, slice, func(int) error { return m.Update(m.split(trainer.sums[0]), 0) })
	if err != nil {
		return r, err
	}

	calls, flops := median(images), median(products)*gemmFLOP
	r = BenchResult{
		Event: "bench", Time: time.Now(), Backend: device.name, MicroBatch: o.MicroBatch, Batch: o.Batch,
		Parallelism:     o.Parallelism,
		ImagesPerSecond: calls * float64(o.MicroBatch), StepImages: median(steps) * float64(o.Batch),
		GradientsMS: 1e3 * float64(o.Parallelism) / calls, UpdateMS: 1e3 / updates,
		GemmGFLOPS: flops / 1e9, LimitImages: flops / flopPerImage, OpenSeconds: opened.Seconds(),
	}
	r.Share = r.ImagesPerSecond / r.LimitImages
	return r, nil
}

// A benchTrainer trains on noise, like a process without peers: it adds up its micro-batches' gradients without
// quantising.
type benchTrainer struct {
	model   *Model
	batches []*evenweave.Batch // a step's micro-batches
	grads   [][]float32        // one for each call at the same time
	sums    [][]float32        // likewise
	taken   int64              // steps
	samples int                // of a step
}

func newBenchTrainer(m *Model, o BenchOptions) *benchTrainer {
	t := &benchTrainer{model: m, samples: o.Batch}
	random := evenweave.NewGenerator(0)
	for range o.Batch / o.MicroBatch {
		c, image := new(Content), make([]byte, pixels)
		for range o.MicroBatch {
			for i := range image {
				image[i] = byte(random.Uint64())
			}
			c.Add(image, uint8(random.Below(uint64(m.classes))))
		}
		t.batches = append(t.batches, &evenweave.Batch{Content: c})
	}
	for range o.Parallelism {
		t.grads, t.sums = append(t.grads, make([]float32, m.size())),
			append(t.sums, make([]float32, m.size()))
	}
	return t
}

func (t *benchTrainer) gradients(worker int) error {
	_, err := t.model.Gradients(t.batches[0], t.model.split(t.grads[worker]))
	return err
}

func (t *benchTrainer) step() error {
	failures := make([]error, len(t.grads))
	var wg sync.WaitGroup
	for worker, grad := range t.grads {
		wg.Go(func() {
			clear(t.sums[worker])
			for v := worker; v < len(t.batches) && failures[worker] == nil; v += len(t.grads) {
				_, failures[worker] = t.model.Gradients(t.batches[v], t.model.split(grad))
				addTo(t.sums[worker], grad)
			}
		})
	}
	wg.Wait()
	for _, s := range t.sums[1:] {
		addTo(t.sums[0], s)
	}
	for i := range t.sums[0] {
		t.sums[0][i] /= float32(t.samples)
	}
	t.taken++
	return errors.Join(append(failures, t.model.Update(t.model.split(t.sums[0]), t.taken-1))...)
}

func addTo(sum, part []float32) {
	for i, x := range part {
		sum[i] += x
	}
}

// gemmSide is large enough for a matrix product to run at full speed.
const gemmSide = 768

// compileGemm gives a program of a few products in a row, and its FLOP.
func compileGemm(b compute.Backend) (p *backend.Program, flop float64, err error) {
	const products = 8
	p, err = backend.Compile(b, "gemm", []shapes.Shape{shapes.Make(dtypes.Float32, gemmSide, gemmSide)},
		func(in []*Node) []*Node {
			x := in[0]
			for range products {
				x = Dot(x, in[0]).Product()
			}
			return []*Node{Reshape(Slice(x, AxisElem(0), AxisElem(0)), 1)}
		})
	return p, products * 2 * gemmSide * gemmSide * gemmSide, err
}

// callRate calls f from several goroutines for about d and returns calls a second.
func callRate(ctx context.Context, parallelism int, d time.Duration, f func(worker int) error) (float64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d, errTimeIsUp)
	defer cancel()
	counts, failures := make([]int, parallelism), make([]error, parallelism)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range parallelism {
		wg.Go(func() {
			for failures[i] == nil && (counts[i] == 0 || ctx.Err() == nil) {
				failures[i] = f(i)
				counts[i]++
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start).Seconds()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, errTimeIsUp) {
		failures = append(failures, err)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / elapsed, errors.Join(failures...)
}

var errTimeIsUp = errors.New("the measuring time is up")

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}
