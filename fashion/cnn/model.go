package cnn

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"evenweave"
	"evenweave/gomlx/backend"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// evaluationBatch is the fixed number of images of one evaluation call; the last one is padded. As small as a
// micro-batch, so that a call's intermediate results stay in the cache.
const evaluationBatch = 16

// Options choose what Open builds.
type Options struct {
	Backend    string // "auto", "xla", "xla:cuda" or "go"
	Recipe     string // "tutorial", "fast" or "augment"; empty means the first
	MicroBatch int    // samples of one Gradients call
	Classes    int    // of the labels; 0: 10
	TotalSteps int64  // length of the schedule, for recipes that have one
	Freeze     string // patterns of the tensors that Update leaves alone, see Frozen
	// EvaluateOnly: neither Gradients nor Update will be called. Nothing is loaded or compiled before its first use.
	EvaluateOnly bool

	noDropout bool // for comparing with other implementations
}

// A Model is the network, its optimizer and their live state on one device: an evenweave.Model whose batches hold
// *Content.
//
// Gradients, Logits and Read may run at the same time as each other; the other methods wait for them and have the model
// to themselves.
type Model struct {
	options Options
	recipe  Recipe
	classes int
	all     []Tensor // that are trained
	frozen  []Tensor
	device  func() (*device, error)

	gradients, update, evaluate backend.Lazy

	mu     sync.RWMutex
	state  []float32 // parameters, then Adam's first and second moments; nothing else remembers it
	next   []float32 // where Update computes; swapped with state when complete
	closed bool
}

// Open compiles the model and runs it once, so that the first step is no slower than the others. The state is that of
// Init(0). Close releases it.
func Open(options Options) (*Model, error) {
	if options.MicroBatch < 1 {
		return nil, fmt.Errorf("micro-batch %d: must be at least 1", options.MicroBatch)
	}
	if options.Recipe == "" {
		options.Recipe = "tutorial"
	}
	recipe, err := RecipeNamed(options.Recipe)
	if err != nil {
		return nil, err
	}
	if options.noDropout {
		recipe.Dropout = 0
	}
	classes := cmp.Or(options.Classes, defaultClasses)
	if classes < 1 || classes > MaxClasses {
		return nil, fmt.Errorf("%d classes: must be 1 to %d", classes, MaxClasses)
	}
	frozen, err := Frozen(options.Freeze, classes)
	if err != nil {
		return nil, err
	}
	m := &Model{options: options, recipe: recipe, classes: classes, all: parameters(classes),
		frozen: frozen, device: lazyDevice(options.Backend)}
	m.state, m.next = make([]float32, 3*m.size()), make([]float32, 3*m.size())
	initialParameters(0, m.state[:m.size()])
	on := func(compile func(compute.Backend) (*backend.Program, error)) func() (*backend.Program, error) {
		return func() (*backend.Program, error) {
			d, err := m.device()
			if err != nil {
				return nil, err
			}
			return compile(d.Backend)
		}
	}
	m.gradients.Compile = on(func(b compute.Backend) (*backend.Program, error) {
		return compileGradients(b, options.MicroBatch, m.size(), recipe)
	})
	m.update.Compile = on(func(b compute.Backend) (*backend.Program, error) {
		return compileUpdate(b, m.size(), recipe)
	})
	m.evaluate.Compile = on(func(b compute.Backend) (*backend.Program, error) { return compileLogits(b, m.size()) })
	if options.EvaluateOnly {
		return m, nil
	}
	if err := m.warmUp(); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// size is the number of parameters.
func (m *Model) size() int { return numParameters(m.classes) }

// A device is an open backend.
type device struct {
	compute.Backend
	name string // "xla", "xla:cuda" or "go"
}

// lazyDevice opens a backend when it is first asked for.
func lazyDevice(want string) func() (*device, error) {
	return sync.OnceValues(func() (*device, error) {
		b, name, _, err := backend.Open(want)
		if err != nil {
			return nil, err
		}
		return &device{b, name}, nil
	})
}

// warmUp runs the programs that training needs, on samples of no weight.
func (m *Model) warmUp() error {
	n := m.options.MicroBatch
	grad := make([]float32, m.size())
	content := &Content{Images: make([]byte, n*pixels), Labels: make([]uint8, n), Weights: make([]float32, n)}
	if _, err := m.gradientsAt(content, 0, grad); err != nil {
		return err
	}
	return m.step(m.next, m.state, grad, 0)
}

// compileGradients: (parameters, images [n,784], labels [n], weights [n], key low, key high) give (gradient of the
// weighted sum of losses, [that sum, number of samples of weight above 0 that are classified right]).
func compileGradients(b compute.Backend, n, p int, recipe Recipe) (*backend.Program, error) {
	inputs := []shapes.Shape{
		vector(p), shapes.Make(dtypes.Uint8, n, pixels), shapes.Make(dtypes.Uint8, n), vector(n),
		scalar(dtypes.Uint32), scalar(dtypes.Uint32),
	}
	return backend.Compile(b, "gradients", inputs, func(in []*Node) []*Node {
		if n == 1 { // a product with one column would be a vector's: a second sample, of no weight
			for i := 1; i <= 3; i++ {
				in[i] = Concatenate([]*Node{in[i], ZerosLike(in[i])}, 0)
			}
		}
		params, images, labels, weights := in[0], in[1], ConvertDType(in[2], dtypes.Int32), in[3]
		var key *dropoutKey
		if recipe.Dropout > 0 {
			key = &dropoutKey{low: in[4], high: in[5], rate: recipe.Dropout}
		}
		net := forward(params, images, key)
		loss, d := crossEntropy(net.logits, labels, weights, recipe.Smoothing)
		right := And(Equal(ArgMax(net.logits, 0, dtypes.Int32), labels), IsPositive(weights))
		correct := ConvertDType(ReduceAllSum(ConvertDType(right, dtypes.Int32)), dtypes.Float32)
		return []*Node{net.gradient(d), Stack([]*Node{loss, correct}, 0)}
	})
}

// compileUpdate: (state, mean gradient, moment, rate, keep) give the new state.
func compileUpdate(b compute.Backend, p int, recipe Recipe) (*backend.Program, error) {
	f := scalar(dtypes.Float32)
	return backend.Compile(b, "update", []shapes.Shape{vector(3 * p), vector(p), f, f, f}, func(in []*Node) []*Node {
		part := func(i int) *Node { return Slice(in[0], AxisRange(i*p, (i+1)*p)) }
		return []*Node{Concatenate(optimize(recipe.Muon, part(0), part(1), part(2), in[1], in[2], in[3], in[4]), 0)}
	})
}

// compileLogits: (parameters, images [16,784]) give [16,classes].
func compileLogits(b compute.Backend, p int) (*backend.Program, error) {
	inputs := []shapes.Shape{vector(p), shapes.Make(dtypes.Uint8, evaluationBatch, pixels)}
	return backend.Compile(b, "logits", inputs, func(in []*Node) []*Node {
		return []*Node{Transpose(forward(in[0], in[1], nil).logits, 0, 1)}
	})
}

// Gradients implements evenweave.Model. Each call uses one thread.
func (m *Model) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	content, ok := b.Content.(*Content)
	if !ok {
		return evenweave.Sums{}, fmt.Errorf("a batch of %T, this model takes *cnn.Content", b.Content)
	}
	flat, whole, err := m.join(grads)
	if err != nil {
		return evenweave.Sums{}, err
	}
	sums, err := m.gradientsAt(content, b.Key, flat)
	if err == nil && !whole {
		m.spread(grads, flat)
	}
	return sums, err
}

// gradientsAt computes one micro-batch with the live state: grad (of all parameters) becomes the gradient of the
// weighted sum of the samples' losses.
func (m *Model) gradientsAt(c *Content, key uint64, grad []float32) (sums evenweave.Sums, err error) {
	n := m.options.MicroBatch
	switch {
	case m.closed:
		return sums, errClosed
	case len(c.Labels) != n || len(c.Weights) != n || len(c.Images) != n*pixels:
		return sums, fmt.Errorf("micro-batch of %d labels, %d weights, %d bytes: the model was opened for %d "+
			"samples of %d bytes", len(c.Labels), len(c.Weights), len(c.Images), n, pixels)
	case len(grad) != m.size():
		return sums, fmt.Errorf("gradient buffer has %d elements, expected %d", len(grad), m.size())
	}
	var results [2]float32
	err = m.gradients.Run([]any{grad, results[:]},
		[]any{m.state[:m.size()], c.Images, c.Labels, c.Weights, []uint32{uint32(key)},
			[]uint32{uint32(key >> 32)}})
	for _, w := range c.Weights {
		if w > 0 {
			sums.Weight++
		}
	}
	sums.Loss, sums.Metrics = float64(results[0]), []int64{int64(results[1])}
	return sums, err
}

// Update implements evenweave.Model.
func (m *Model) Update(mean [][]float32, step int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	flat, whole, err := m.join(mean)
	if err != nil {
		return err
	}
	if !whole {
		m.gather(flat, mean)
	}
	if err := m.step(m.next, m.state, flat, step); err != nil {
		return err
	}
	m.state, m.next = m.next, m.state
	return nil
}

// step computes the state after one update of `from` into `to`.
func (m *Model) step(to, from, mean []float32, step int64) error {
	switch {
	case m.closed:
		return errClosed
	case len(mean) != m.size():
		return fmt.Errorf("mean gradient has %d elements, expected %d", len(mean), m.size())
	case step < 0:
		return fmt.Errorf("step %d is negative", step)
	}
	p := m.size()
	moment, rate, keep := m.recipe.factors(step, m.options.TotalSteps)
	err := m.update.Run([]any{to}, []any{from, mean, []float32{moment}, []float32{rate}, []float32{keep}})
	for _, t := range m.frozen {
		for lo := t.Offset; lo < len(to); lo += p { // parameters and both moments
			copy(to[lo:lo+t.Size()], from[lo:])
		}
	}
	return err
}

// Logits evaluates the network without dropout on the live state: n images of 784 bytes give n x classes numbers in
// dst.
func (m *Model) Logits(images []byte, dst []float32) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := len(images) / pixels
	switch {
	case m.closed:
		return errClosed
	case len(images) != n*pixels || len(dst) != n*m.classes:
		return fmt.Errorf(
			"%d image bytes and %d results: expected multiples of %d and %d for the same number of images",
			len(images), len(dst), pixels, m.classes)
	}
	batch := make([]byte, evaluationBatch*pixels)
	out := make([]float32, evaluationBatch*m.classes)
	for at := 0; at < n; at += evaluationBatch {
		clear(batch[copy(batch, images[at*pixels:]):])
		if err := m.evaluate.Run([]any{out}, []any{m.state[:m.size()], batch}); err != nil {
			return err
		}
		copy(dst[at*m.classes:], out)
	}
	return nil
}

var errClosed = errors.New("the model is closed")

// Close releases programs and backend.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	used := m.gradients.Close()
	used = m.update.Close() || used
	if used = m.evaluate.Close() || used; !used {
		return nil // the backend may not even be open
	}
	d, err := m.device()
	if err != nil {
		return nil // it could not be opened: there is nothing to release
	}
	d.Finalize()
	return nil
}
