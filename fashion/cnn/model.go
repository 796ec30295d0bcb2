package cnn

import (
	"errors"
	"fmt"
	"sync"

	"evenweave"

	"evenweave/gomlx/backend"
	"evenweave/internal/schedule"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// evaluationBatch is the fixed number of images of one evaluation call; the last
// one is padded. As small as a micro-batch, so that a call's intermediate results
// stay in the cache.
const evaluationBatch = 16

// Options choose what Open builds.
type Options struct {
	Backend      string // "auto", "xla", "xla:cuda" or "go"
	Recipe       string // "tutorial", "fast" or "augment"; empty means the first
	MicroBatch   int    // samples of one Gradients call
	TotalSteps   int64  // length of the schedule, for recipes that have one
	Freeze       string // patterns of the tensors that Update leaves alone, see Frozen
	EvaluateOnly bool   // only Logits will be called: nothing else is compiled before its first use

	noDropout bool // for comparing with other implementations
}

// A Model is the network, its optimizer and their live state on one device.
//
// Gradients, Logits and Numerics may run at the same time as each other; Update,
// SetState and Close wait for them and have the model to themselves.
type Model struct {
	options Options
	recipe  Recipe
	frozen  []Tensor
	backend compute.Backend
	name    string
	notice  string

	gradients, update, evaluate backend.Lazy

	mu     sync.RWMutex
	state  []float32 // as Layout says; nothing else remembers it
	next   []float32 // where Update computes; swapped with state when complete
	closed bool
}

// Open compiles the model and runs it once, so that the first step is no slower
// than the others. The state is Init(0) until SetState. Close releases it.
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
	frozen, err := Frozen(options.Freeze)
	if err != nil {
		return nil, err
	}
	device, name, notice, err := backend.Open(options.Backend)
	if err != nil {
		return nil, err
	}
	m := &Model{options: options, recipe: recipe, frozen: frozen, backend: device, name: name, notice: notice}
	m.state = m.Init(0)
	m.next = make([]float32, len(m.state))
	m.gradients.Compile = func() (*backend.Program, error) {
		return compileGradients(device, options.MicroBatch, recipe)
	}
	m.update.Compile = func() (*backend.Program, error) { return compileUpdate(device, recipe) }
	m.evaluate.Compile = func() (*backend.Program, error) { return compileLogits(device) }
	if err := m.warmUp(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// warmUp runs the programs that are sure to be needed, on samples of no weight.
func (m *Model) warmUp() error {
	n := m.options.MicroBatch
	if m.options.EvaluateOnly {
		return m.Logits(m.state, make([]byte, pixels), make([]float32, classes))
	}
	grad := make([]float32, NumParameters)
	batch := &schedule.Batch{Inputs: make([]byte, n*pixels), Labels: make([]uint8, n), Weights: make([]float32, n)}
	if _, _, err := m.Gradients(batch, grad); err != nil {
		return err
	}
	return m.step(m.next, m.state, grad, 0)
}

// compileGradients: (parameters, images [n,784], labels [n], weights [n], key
// low, key high) give (gradient of the weighted sum of losses, [that sum, number
// of samples of weight above 0 that are classified right]).
func compileGradients(b compute.Backend, n int, recipe Recipe) (*backend.Program, error) {
	inputs := []shapes.Shape{
		vector(NumParameters), shapes.Make(dtypes.Uint8, n, pixels), shapes.Make(dtypes.Uint8, n), vector(n),
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
func compileUpdate(b compute.Backend, recipe Recipe) (*backend.Program, error) {
	const p = NumParameters
	f := scalar(dtypes.Float32)
	return backend.Compile(b, "update", []shapes.Shape{vector(3 * p), vector(p), f, f, f}, func(in []*Node) []*Node {
		part := func(i int) *Node { return Slice(in[0], AxisRange(i*p, (i+1)*p)) }
		return []*Node{Concatenate(optimize(recipe.Muon, part(0), part(1), part(2), in[1], in[2], in[3], in[4]), 0)}
	})
}

// compileLogits: (parameters, images [16,784]) give [16,10].
func compileLogits(b compute.Backend) (*backend.Program, error) {
	inputs := []shapes.Shape{vector(NumParameters), shapes.Make(dtypes.Uint8, evaluationBatch, pixels)}
	return backend.Compile(b, "logits", inputs, func(in []*Node) []*Node {
		return []*Node{Transpose(forward(in[0], in[1], nil).logits, 0, 1)}
	})
}

// Backend is the one in use: "xla", "xla:cuda" or "go".
func (m *Model) Backend() string { return m.name }

// Notice says why "auto" settled for the "go" backend, or is empty.
func (m *Model) Notice() string { return m.notice }

// Parameters is the length of a gradient.
func (m *Model) Parameters() int { return NumParameters }

// Layers describes the network, input first.
func (m *Model) Layers() []Layer { return Layers(m.recipe) }

// Layout names each tensor of the state and where it lies.
func (m *Model) Layout() []Tensor {
	var all []Tensor
	for i, part := range []string{"", "adam/m/", "adam/v/"} {
		for _, t := range parameters() {
			t.Name = part + t.Name
			t.Offset += i * NumParameters
			all = append(all, t)
		}
	}
	return all
}

// Init returns a fresh state for a seed; the same on every backend and rank.
func (m *Model) Init(seed uint64) []float32 {
	state := make([]float32, 3*NumParameters)
	initialParameters(seed, state[:NumParameters])
	return state
}

// State is the live state, as Layout says. Gradients and Update read exactly
// this memory. It is the caller's to read until the next Update or SetState.
func (m *Model) State() []float32 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.state
}

// SetState replaces the live state by a copy of values.
func (m *Model) SetState(values []float32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(values) != len(m.state) {
		return fmt.Errorf("state has %d values, this model needs %d: it belongs to another", len(values), len(m.state))
	}
	copy(m.state, values)
	return nil
}

// Gradients computes one micro-batch with the live state: grad (NumParameters
// long) becomes the gradient of the weighted sum of the samples' losses, and the
// results are that sum and how many samples of non-zero weight were classified
// right. It may be called from several goroutines; each call uses one thread.
func (m *Model) Gradients(b *schedule.Batch, grad []float32) (loss float32, correct int, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.gradientsAt(m.state[:NumParameters], b, grad)
}

func (m *Model) gradientsAt(params []float32, b *schedule.Batch, grad []float32) (loss float32, correct int, err error) {
	n := m.options.MicroBatch
	switch {
	case m.closed:
		return 0, 0, errClosed
	case len(b.Labels) != n || len(b.Weights) != n || len(b.Inputs) != n*pixels:
		return 0, 0, fmt.Errorf("micro-batch of %d labels, %d weights, %d bytes: the model was opened for %d samples of %d bytes",
			len(b.Labels), len(b.Weights), len(b.Inputs), n, pixels)
	case len(grad) != NumParameters:
		return 0, 0, fmt.Errorf("gradient buffer has %d elements, expected %d", len(grad), NumParameters)
	}
	var sums [2]float32
	err = m.gradients.Run([]any{grad, sums[:]},
		[]any{params, b.Inputs, b.Labels, b.Weights, []uint32{uint32(b.Key)}, []uint32{uint32(b.Key >> 32)}})
	return sums[0], int(sums[1]), err
}

// Update applies the optimizer to the live state, given the mean gradient and
// the number of updates before this one. On an error the state is unchanged.
func (m *Model) Update(mean []float32, step int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.step(m.next, m.state, mean, step); err != nil {
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
	case len(mean) != NumParameters:
		return fmt.Errorf("mean gradient has %d elements, expected %d", len(mean), NumParameters)
	case step < 0:
		return fmt.Errorf("step %d is negative", step)
	}
	const p = NumParameters
	moment, rate, keep := m.recipe.factors(step, m.options.TotalSteps)
	err := m.update.Run([]any{to}, []any{from, mean, []float32{moment}, []float32{rate}, []float32{keep}})
	for _, t := range m.frozen {
		for lo := t.Offset; lo < len(to); lo += p { // parameters and both moments
			copy(to[lo:lo+t.Size()], from[lo:])
		}
	}
	return err
}

// Logits evaluates the network without dropout: parameters (the first
// NumParameters are used) and n images of 784 bytes give n x 10 numbers in dst.
func (m *Model) Logits(params []float32, images []byte, dst []float32) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := len(images) / pixels
	switch {
	case m.closed:
		return errClosed
	case len(params) < NumParameters:
		return fmt.Errorf("%d parameters, expected %d", len(params), NumParameters)
	case len(images) != n*pixels || len(dst) != n*classes:
		return fmt.Errorf("%d image bytes and %d results: expected multiples of %d and %d for the same number of images", len(images), len(dst), pixels, classes)
	}
	batch := make([]byte, evaluationBatch*pixels)
	out := make([]float32, evaluationBatch*classes)
	for at := 0; at < n; at += evaluationBatch {
		clear(batch[copy(batch, images[at*pixels:]):])
		if err := m.evaluate.Run([]any{out}, []any{params[:NumParameters], batch}); err != nil {
			return err
		}
		copy(dst[at*classes:], out)
	}
	return nil
}

// Numerics is the hash of Gradients and Update on fixed inputs and a fixed
// state: equal where plug-in and class of processor give equal bits. It leaves the live state alone.
func (m *Model) Numerics() (string, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := m.options.MicroBatch
	random := evenweave.NewGenerator(0)
	b := &schedule.Batch{Inputs: make([]byte, n*pixels), Labels: make([]uint8, n), Weights: make([]float32, n), Key: random.Uint64()}
	for i := range b.Inputs {
		b.Inputs[i] = byte(random.Uint64())
	}
	for i := range n {
		b.Labels[i], b.Weights[i] = uint8(i%classes), 1
	}
	state := m.Init(1)
	grad := make([]float32, NumParameters)
	loss, _, err := m.gradientsAt(state[:NumParameters], b, grad)
	if err != nil {
		return "", err
	}
	after := make([]float32, len(state))
	if err := m.step(after, state, grad, m.options.TotalSteps/2); err != nil { // where the rate is high enough to show
		return "", err
	}
	return hashFloats([]float32{loss}, grad, after), nil
}

var errClosed = errors.New("the model is closed")

// Close releases programs and backend. The slice that State gave stays valid.
func (m *Model) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	m.gradients.Close()
	m.update.Close()
	m.evaluate.Close()
	m.backend.Finalize()
}
