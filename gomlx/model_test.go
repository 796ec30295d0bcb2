package gomlx

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/layers"
	"github.com/gomlx/gomlx/ml/layers/activation"
	"github.com/gomlx/gomlx/ml/layers/norm"
	"github.com/gomlx/gomlx/ml/layers/regularizer"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/optimizer"
	"github.com/gomlx/gomlx/ml/train/optimizer/cosineschedule"

	"evenweave"
	"evenweave/dataset"
	"evenweave/internal/exact"
)

const (
	features = 12
	hidden   = 24
	classes  = 5
	samples  = 128 // of a step
)

// network is a small perceptron with what its parameters ask for.
type network struct{ dropout, batchNorm, cosine bool }

func (o network) build(scope *model.Scope, x *graph.Node) *graph.Node {
	g := x.Graph()
	if o.cosine {
		cosineschedule.New(scope, g, dtypes.Float32).FromScope().Done()
	}
	x = layers.Dense(scope.In("dense"), x, true, hidden)
	if o.batchNorm {
		x = norm.BatchNorm(scope.In("norm"), x, -1).Done()
	}
	x = activation.Relu(x)
	if o.dropout {
		x = layers.DropoutStatic(scope, x, 0.5)
	}
	return layers.Dense(scope.In("output"), x, true, classes)
}

func (o network) config(opt optimizer.Interface, params map[string]any) Config {
	return Config{
		Model: o.build, Loss: loss.SparseCategoricalCrossEntropyLogits, Optimizer: opt, Params: params,
		Inputs: []shapes.Shape{shapes.Make(dtypes.Float32, features)},
		Labels: []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
	}
}

// data are n samples whose classes can be learned.
func data(t *testing.T, n int) evenweave.Data {
	t.Helper()
	g := evenweave.NewGenerator(7)
	x, y := make([]float32, n*features), make([]int32, n)
	for i := range y {
		y[i] = int32(g.Below(classes))
		for j := range features {
			x[i*features+j] = float32(g.Below(1000))/1000 - 0.5
		}
		x[i*features+int(y[i])]++
	}
	d, err := dataset.InMemory([]dataset.Flat{dataset.Of(x, features)}, []dataset.Flat{dataset.Of(y, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// open opens a model, or skips the test where XLA's plug-in is missing.
func open(t *testing.T, setup evenweave.Setup, c Config) *Model {
	t.Helper()
	setup.Backend = cmp.Or(setup.Backend, "xla")
	setup.Seed = cmp.Or(setup.Seed, 42)
	m, err := New(setup, c)
	if err != nil {
		if setup.Backend == "xla" && strings.Contains(err.Error(), "make setup") {
			t.Skipf("needs XLA's plug-in: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// batches loads the micro-batches of a step.
func batches(t *testing.T, d evenweave.Data, step, size, micro int) (all []*evenweave.Batch) {
	t.Helper()
	for v := range (size + micro - 1) / micro {
		b := &evenweave.Batch{Step: int64(step), MicroBatch: v, Key: evenweave.Key(42, evenweave.PurposeDropout,
			uint64(step), uint64(v))}
		for i := range micro {
			if at := v*micro + i; at < size {
				b.Samples = append(b.Samples, int32((step*size+at)%d.Len()))
			} else {
				b.Samples = append(b.Samples, evenweave.Padding)
			}
		}
		if err := d.Load(b); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	return all
}

func buffers(m *Model) (all [][]float32) {
	for _, t := range m.state[:m.summed] {
		all = append(all, make([]float32, t.Elements()))
	}
	return all
}

// step takes a step; without quantizing, of one micro-batch, it does what train.Trainer does.
func step(t *testing.T, m *Model, all []*evenweave.Batch, at int, quantize bool) (loss float64) {
	t.Helper()
	var total evenweave.Sums
	var flat [][]float32
	var elements []int
	for _, b := range all {
		grads := buffers(m)
		s, err := m.Gradients(b, grads)
		if err != nil {
			t.Fatal(err)
		}
		total.Loss, total.Weight = total.Loss+s.Loss, total.Weight+s.Weight
		flat = append(flat, slices.Concat(grads...))
	}
	grads := buffers(m)
	for _, g := range grads {
		elements = append(elements, len(g))
	}
	mean := make([]float32, len(flat[0]))
	for i := range mean { // of one micro-batch
		mean[i] = flat[0][i] / float32(total.Weight)
	}
	if blocks := exact.NewBlocks(elements); quantize {
		_, bad := blocks.Step(mean, flat, make([]int32, blocks.Count()), total.Weight, int64(at))
		if bad >= 0 {
			t.Fatal("a gradient is not finite")
		}
	}
	for _, g := range grads {
		mean = mean[copy(g, mean):]
	}
	if err := m.Update(grads, int64(at)); err != nil {
		t.Fatal(err)
	}
	return total.Loss / float64(total.Weight)
}

// reference trains with GoMLX's own trainer, from the model's state.
type reference struct {
	store   *model.Store
	trainer *train.Trainer
}

func newReference(t *testing.T, m *Model) *reference {
	t.Helper()
	function, err := m.config.signature()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(42); err != nil {
		t.Fatal(err)
	}
	store, err := m.initial(42)
	if err != nil {
		t.Fatal(err)
	}
	return &reference{store, train.NewTrainer(m.device, store, function, m.config.Loss, m.builder.optimizer, nil, nil)}
}

func (r *reference) step(t *testing.T, b *evenweave.Batch) {
	t.Helper()
	if v := r.store.GetVariable(generatorPath()); v != nil {
		state := tensors.FromShape(graph.RNGStateShape)
		state.MustMutableFlatData(func(flat any) { copy(bytesOf(flat), generatorState(b.Key)) })
		if err := v.SetValue(state); err != nil {
			t.Fatal(err)
		}
	}
	r.batch(t, b)
}

// batch trains with the generator as it is.
func (r *reference) batch(t *testing.T, b *evenweave.Batch) {
	t.Helper()
	c := b.Content.(*dataset.Content)
	batch := train.Batch{}
	for _, f := range c.Inputs {
		batch.Inputs = append(batch.Inputs, tensorOf(f, len(c.Weights)))
	}
	for _, f := range c.Labels {
		batch.Labels = append(batch.Labels, tensorOf(f, len(c.Weights)))
	}
	if _, err := r.trainer.TrainStep(batch); err != nil {
		t.Fatal(err)
	}
}

func tensorOf(f dataset.Flat, n int) *tensors.Tensor {
	var dtype dtypes.DType
	for d, name := range types() {
		if name == f.Type {
			dtype = d
		}
	}
	out := tensors.FromShape(shapes.Make(dtype, append([]int{n}, f.Shape...)...))
	out.MustMutableFlatData(func(flat any) { copy(bytesOf(flat), f.Bytes) })
	return out
}

// compare gives how many of the values of a role differ from the trainer's, and the relative L2 distance.
func (r *reference) compare(t *testing.T, m *Model, role evenweave.Role) (differ, all int, l2 float64) {
	t.Helper()
	var distance, length float64
	for _, s := range m.state {
		if s.Role != role || s.Type != evenweave.Float32 {
			continue
		}
		v := r.store.GetVariable(s.path)
		if v == nil {
			t.Fatalf("the trainer has no %s", s.path)
		}
		own := s.flat.([]float32)
		if err := v.MustValue().ConstFlatData(func(flat any) {
			for i, want := range flat.([]float32) {
				all++
				if math.Float32bits(own[i]) != math.Float32bits(want) {
					differ++
				}
				distance += math.Pow(float64(own[i])-float64(want), 2)
				length += math.Pow(float64(want), 2)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	return differ, all, math.Sqrt(distance / max(length, 1e-30))
}

// trained is a network with what trains it.
type trained struct {
	name    string
	network network
	opt     optimizer.Interface
	params  map[string]any
}

// optimizers are the rows of what must be train.Trainer's, to the last bit.
func optimizers() []trained {
	rate := func(more ...any) map[string]any {
		p := map[string]any{optimizer.ParamLearningRate: 0.01}
		for i := 0; i < len(more); i += 2 {
			p[more[i].(string)] = more[i+1]
		}
		return p
	}
	return []trained{
		{"adam", network{}, optimizer.Adam().Done(), rate()},
		{"adamw by name", network{}, nil, rate()},
		{"sgd", network{}, optimizer.StochasticGradientDescent(), map[string]any{optimizer.ParamLearningRate: 0.3}},
		{"rmsprop", network{}, optimizer.RMSProp().Done(), rate()},
		{"cosine", network{cosine: true}, optimizer.Adam().Done(), rate(cosineschedule.ParamPeriodSteps, 7)},
		{"cosine to the last step", network{cosine: true}, optimizer.Adam().Done(),
			rate(cosineschedule.ParamCycles, 1)},
		{"L1", network{}, optimizer.Adam().Done(), rate(regularizer.ParamL1, 1e-3)},
		{"L2", network{}, optimizer.Adam().Done(), rate(regularizer.ParamL2, 1e-3)},
		{"dropout", network{dropout: true}, optimizer.Adam().Done(), rate()},
		{"batch norm", network{batchNorm: true}, optimizer.Adam().Done(), rate()},
		{"no gradients", network{}, onlyLoss{optimizer.Adam().Done()}, rate()},
	}
}

// onlyLoss hides that an optimizer takes gradients.
type onlyLoss struct{ optimizer.Interface }

// onEach runs a test for each row on the "go" backend, which compiles nothing, and for some of them on XLA.
func onEach(t *testing.T, test func(t *testing.T, setup evenweave.Setup, row trained)) {
	for _, row := range optimizers() {
		for _, backend := range []string{"go", "xla"} {
			lacking := backend == "go" && row.network.batchNorm
			slow := backend == "xla" && !slices.Contains([]string{"rmsprop", "L1", "dropout", "batch norm"}, row.name)
			if lacking || slow {
				continue
			}
			t.Run(row.name+" on "+backend, func(t *testing.T) {
				test(t, evenweave.Setup{Backend: backend, MicroBatch: samples, TotalSteps: 10}, row)
			})
		}
	}
}

// TestStepsAreTrainers: one micro-batch of the whole batch, not quantized, is a step of GoMLX's own trainer.
func TestStepsAreTrainers(t *testing.T) {
	d := data(t, 1024)
	onEach(t, func(t *testing.T, setup evenweave.Setup, row trained) {
		m := open(t, setup, row.network.config(row.opt, row.params))
		r := newReference(t, m)
		for i := range 10 {
			all := batches(t, d, i, samples, samples)
			step(t, m, all, i, false)
			r.step(t, all[0])
		}
		for _, role := range []evenweave.Role{evenweave.Trained, evenweave.Kept} {
			differ, all, l2 := r.compare(t, m, role)
			if differ > 0 || all == 0 {
				t.Errorf("%d of %d values that are %s differ from the trainer's, L2 %.1e", differ, all, role, l2)
			}
		}
		if _, n, l2 := r.compare(t, m, evenweave.Averaged); l2 > 1e-5 || row.network.batchNorm != (n > 0) {
			t.Errorf("%d averages are %.1e away from the trainer's", n, l2)
		}
	})
}

// TestMicroBatchesAreNearTrainers: eight quantized micro-batches give the same weights except for rounding.
func TestMicroBatchesAreNearTrainers(t *testing.T) {
	d := data(t, 1024)
	onEach(t, func(t *testing.T, setup evenweave.Setup, row trained) {
		if row.network.dropout || row.network.batchNorm || setup.Backend == "xla" && row.name != "L1" {
			t.Skip("dropout and batch norm see one micro-batch at a time")
		}
		setup.MicroBatch = samples / 8
		m := open(t, setup, row.network.config(row.opt, row.params))
		r := newReference(t, m)
		for i := range 10 {
			step(t, m, batches(t, d, i, samples, samples/8), i, true)
			r.step(t, batches(t, d, i, samples, samples)[0])
		}
		differ, all, l2 := r.compare(t, m, evenweave.Trained)
		t.Logf("%d of %d weights equal the trainer's, L2 %.1e", all-differ, all, l2)
		if l2 > 1e-5 {
			t.Errorf("weights are %.1e away from the trainer's", l2)
		}
	})
}
