package probe

import (
	"errors"
	"math"
	"runtime"
	"testing"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

func layout(t *testing.T, tensors ...evenweave.Tensor) *state.Layout {
	t.Helper()
	l, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// skewed is the tiny model with arithmetic of its own.
type skewed struct {
	*example.Softmax
	gradient, update float32
}

func (s skewed) Gradients(b *evenweave.Batch, grads [][]float32) (evenweave.Sums, error) {
	sums, err := s.Softmax.Gradients(b, grads)
	grads[0][4] += s.gradient
	return sums, err
}

func (s skewed) Update(mean [][]float32, step int64) error {
	err := s.Softmax.Update(mean, step)
	s.Weights()[8] += s.update
	return err
}

// The probe is the same for equal arithmetic and data, whatever the live state was. It sees every other gradient,
// update and sample, and names the first tensor that differs.
func TestNumerics(t *testing.T) {
	plan := schedule.Plan{Seed: 1, Samples: 300, GlobalBatch: 32, MicroBatch: 4}
	probe := func(m evenweave.Model, d evenweave.Data, plan schedule.Plan) Golden {
		n, err := Numerics(m, d, plan, 100)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	used := example.NewSoftmax()
	used.Weights()[2] = 7
	want := probe(example.NewSoftmax(), example.Points{N: 300}, plan)
	if got := probe(used, example.Points{N: 300}, plan); got != want || len(got.Hash) != 64 {
		t.Errorf("the live state shows: %s, %s", got, want)
	}
	other := plan
	other.Seed = 2 // so other samples come first
	l := layout(t, used.Tensors()...)
	for where, got := range map[string]Golden{
		"the gradient of weights":      probe(skewed{Softmax: used, gradient: 1e-6}, example.Points{N: 300}, plan),
		"weights after one update":     probe(skewed{Softmax: used, update: 1e-6}, example.Points{N: 300}, plan),
		"the sums of loss and metrics": probe(used, example.Points{N: 300}, other),
	} {
		if first := FirstDifference(l, want.Parts, got.Parts); got.Hash == want.Hash || first != where {
			t.Errorf("first difference: %q, want %q; hashes %s and %s", first, where, want.Hash, got.Hash)
		}
	}
	for _, unknown := range []string{"", want.Parts, want.Parts[4:], "!" + want.Parts[1:], want.Parts + "AAAA"} {
		if first := FirstDifference(l, want.Parts, unknown); first != "" {
			t.Errorf("%q: first difference %q", unknown, first)
		}
	}
	if _, err := Numerics(used, broken{}, plan, 100); !errors.Is(err, errBroken) {
		t.Errorf("data that cannot be loaded: %v", err)
	}
}

var errBroken = errors.New("no such file")

type broken struct{ example.Points }

func (broken) Load(*evenweave.Batch) error { return errBroken }

// Every element is filled with a small finite value that its type holds; a variance or a count is above 0.
func TestFilledStatesAreFinite(t *testing.T) {
	types := []evenweave.DType{
		evenweave.Float32, evenweave.Float64, evenweave.BFloat16, evenweave.Float16, evenweave.Int32, evenweave.Int64,
		evenweave.Uint32, evenweave.Uint64, evenweave.Uint8, evenweave.Bool,
	}
	var tensors []evenweave.Tensor
	for _, role := range []evenweave.Role{evenweave.Trained, evenweave.Averaged, evenweave.Kept} {
		for _, d := range types {
			name := role.String() + "/" + string(d)
			tensors = append(tensors, evenweave.Tensor{Name: name, Type: d, Shape: []int{1000}, Role: role})
		}
	}
	s := state.New(layout(t, tensors...), 10)
	if err := fill(s.Layout, s); err != nil {
		t.Fatal(err)
	}
	for i, tensor := range tensors {
		seen := map[float64]bool{}
		size := tensor.Type.Size()
		for p := s.Tensor(i); len(p) > 0; p = p[size:] {
			v := value(p[:size], tensor.Type)
			seen[v] = true
			lowest, highest := 0.0, 1.0/16
			switch {
			case tensor.Type == evenweave.Bool:
				lowest, highest = -1, 1
			case tensor.Type == evenweave.Uint8, size == 8 && tensor.Type != evenweave.Float64,
				size == 4 && tensor.Type != evenweave.Float32:
				highest = 8
			case tensor.Role == evenweave.Trained:
				lowest = -1.0/16 - 1e-9
			}
			if !(v > lowest && v <= highest) {
				t.Fatalf("%s holds %v", tensor.Name, v)
			}
		}
		if len(seen) < 2 {
			t.Errorf("%s has one value", tensor.Name)
		}
	}
}

// value decodes an element.
func value(p []byte, d evenweave.DType) float64 {
	var n uint64
	for i := range p {
		n |= uint64(p[i]) << (8 * i)
	}
	switch d {
	case evenweave.Float64:
		return math.Float64frombits(n)
	case evenweave.Float32:
		return float64(math.Float32frombits(uint32(n)))
	case evenweave.BFloat16:
		return float64(math.Float32frombits(uint32(n) << 16))
	case evenweave.Float16:
		sign := 1 - 2*float64(n>>15)
		if n&0x7fff == 0 {
			return 0 * sign
		}
		return sign * math.Ldexp(float64(n&0x3ff|0x400), int(n>>10&0x1f)-25)
	}
	return float64(n)
}

// Elements are named in the order of a gradient.
func TestElementNames(t *testing.T) {
	tensor := func(name string, role evenweave.Role, n int) evenweave.Tensor {
		return evenweave.Tensor{Name: name, Type: evenweave.Uint8, Shape: []int{n}, Role: role}
	}
	l := layout(t,
		tensor("a", evenweave.Trained, 3), tensor("k", evenweave.Kept, 2), tensor("m", evenweave.Averaged, 1))
	for i, want := range []string{"a[0]", "a[1]", "a[2]", "m[0]", "element 4"} {
		if got := ElementName(l, i); got != want {
			t.Errorf("element %d is called %s, expected %s", i, got, want)
		}
	}
}

func TestInitial(t *testing.T) {
	m := example.NewSoftmax()
	m.Weights()[3] = 1
	s, err := Initial(m, layout(t, m.Tensors()...), 1, 300)
	if err != nil || s.Step != 0 || s.Ledger.Samples() != 300 ||
		s.SHA256 != state.Seal(state.New(s.Layout, 300)).SHA256 {
		t.Errorf("the first state is %+v, %v", s, err)
	}
}

// big is a model of a million weights, each with two numbers of an optimizer, that computes nothing.
type big struct{ evenweave.Model }

func (big) Tensors() []evenweave.Tensor {
	return []evenweave.Tensor{
		{Name: "w", Type: evenweave.Float32, Shape: []int{1 << 20}, Role: evenweave.Trained},
		{Name: "moments", Type: evenweave.Float32, Shape: []int{2 << 20}, Role: evenweave.Kept},
	}
}
func (big) Read(_ int, _ int64, p []byte) error { clear(p); return nil }
func (big) Write(int, int64, []byte) error      { return nil }
func (big) Gradients(*evenweave.Batch, [][]float32) (evenweave.Sums, error) {
	return evenweave.Sums{Weight: 1}, nil
}
func (big) Update([][]float32, int64) error { return nil }

// TestTheProbeHoldsNoState: a gradient and its sum are all that it needs memory for.
func TestTheProbeHoldsNoState(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	plan := schedule.Plan{Seed: 1, Samples: 300, GlobalBatch: 32, MicroBatch: 4}
	if _, err := Numerics(big{}, example.Points{N: 300}, plan, 100); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	const gradient, other = 4 << 20, 2 << 20
	if n := after.TotalAlloc - before.TotalAlloc; n > 2*gradient+other {
		t.Errorf("%d bytes for a gradient of %d", n, gradient)
	}
}

// filled is a model whose state has a number of elements, which counts its gradients.
type filled struct {
	*evenweave.Memory
	gradients int
}

func (f *filled) Init(uint64) error { return nil }

func (f *filled) Gradients(*evenweave.Batch, [][]float32) (evenweave.Sums, error) {
	f.gradients++
	return evenweave.Sums{Weight: 1}, nil
}

func (f *filled) Update([][]float32, int64) error { return nil }

// TestALargeStatesGradientsAreComputedTwice: what they use after an update is then in memory before the member joins.
func TestALargeStatesGradientsAreComputedTwice(t *testing.T) {
	plan := schedule.Plan{Seed: 1, Samples: 300, GlobalBatch: 32, MicroBatch: 4}
	for elements, want := range map[int]int{100: 1, state.Large / 4: 2} {
		m := &filled{Memory: evenweave.NewMemory(
			evenweave.Tensor{Name: "w", Shape: []int{elements}, Role: evenweave.Trained})}
		if _, err := Numerics(m, example.Points{N: 300}, plan, 100); err != nil || m.gradients != want {
			t.Errorf("%d elements: gradients are computed %d times, want %d; %v", elements, m.gradients, want, err)
		}
	}
}
