package cnn

import (
	"encoding/binary"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"evenweave"
)

// classes are those of the networks that most tests build.
const classes = defaultClasses

// open compiles a model, or skips the test where XLA's plug-in is missing.
func open(t *testing.T, o Options) *Model {
	t.Helper()
	t.Chdir("..") // where `make setup` puts the plug-in
	m, err := Open(o)
	if err != nil {
		if o.Backend == "xla" && strings.Contains(err.Error(), "make setup") {
			t.Skipf("needs XLA's plug-in: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// TestModel holds on each backend what Model promises. The tests share one model, for compiling takes most of the time.
func TestModel(t *testing.T) {
	for _, backend := range []string{"go", "xla"} {
		t.Run(backend, func(t *testing.T) {
			m := open(t, Options{Backend: backend, MicroBatch: 4})
			for name, test := range map[string]func(*testing.T, *Model){
				"equal bits from many goroutines":        equalBitsFromManyGoroutines,
				"the state is the one source of truth":   stateIsTheOneSourceOfTruth,
				"padding changes nothing":                paddingChangesNothing,
				"logits do not depend on neighbours":     logitsDoNotDependOnNeighbours,
				"initial state and layout are as stated": initialStateAndLayout,
			} {
				t.Run(name, func(t *testing.T) { test(t, m) })
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if _, err := m.Gradients(someBatch(4, 1), m.split(make([]float32, numParameters(classes)))); err == nil {
				t.Error("a closed model computes")
			}
		})
	}
}

// mix is the SplitMix64 finaliser.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// unit gives n numbers in [0, 1), as testdata/reference.py does.
func unit(stream, n int) []float64 {
	u := make([]float64, n)
	for i := range u {
		u[i] = float64(mix(uint64(stream)<<32+uint64(i))>>40) / (1 << 24)
	}
	return u
}

func scaled(u []float64, shift, factor float64) []float32 {
	f := make([]float32, len(u))
	for i := range u {
		f[i] = float32((u[i] - shift) * factor)
	}
	return f
}

func referenceBatch() (*evenweave.Batch, *Content) {
	c := &Content{Images: make([]byte, 4*pixels), Labels: []uint8{3, 9, 0, 5}, Weights: []float32{1, 1, 0, 1}}
	for i, u := range unit(4, 4*pixels) {
		c.Images[i] = byte(u * 256)
		if i%pixels < 14*side {
			c.Images[i] = byte(64 * (i / pixels))
		}
	}
	return &evenweave.Batch{Content: c}, c
}

// setState replaces the live state: parameters, then moments.
func (m *Model) setState(values []float32) { copy(m.state, values) }

// TestMathematicsAgreesWithKeras: loss, gradient and an Adam step equal those of an independent implementation in
// float64 (testdata/reference.py), ties included.
func TestMathematicsAgreesWithKeras(t *testing.T) {
	raw, err := os.ReadFile("testdata/reference.bin")
	if err != nil {
		t.Fatal(err)
	}
	reference := make([]float64, len(raw)/8)
	for i := range reference {
		reference[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	for _, backend := range []string{"go", "xla"} {
		t.Run(backend, func(t *testing.T) {
			agreesWithKeras(t, open(t, Options{Backend: backend, MicroBatch: 4, noDropout: true}), reference)
		})
	}
}

func agreesWithKeras(t *testing.T, m *Model, reference []float64) {
	rest := reference
	take := func(n int) []float64 { head := rest[:n]; rest = rest[n:]; return head }
	close := func(what string, got, want, scale float64) {
		if math.Abs(got-want) > 1e-5*scale {
			t.Errorf("%s: %.9g, Keras has %.9g", what, got, want)
		}
	}
	compare := func(what string, flat []float32) {
		for _, tensor := range parameters(classes) {
			part := flat[tensor.Offset : tensor.Offset+tensor.Size()]
			norm, sum := take(1)[0], take(1)[0]
			var square, total float64
			for _, v := range part {
				square += float64(v) * float64(v)
				total += float64(v)
			}
			close(what+" norm of "+tensor.Name, math.Sqrt(square), norm, norm)
			close(what+" sum of "+tensor.Name, total, sum, norm*math.Sqrt(float64(len(part))))
			stride := max(1, len(part)/512)
			var difference, sampled float64
			for i := 0; i < len(part); i += stride {
				want := take(1)[0]
				difference += (float64(part[i]) - want) * (float64(part[i]) - want)
				sampled += want * want
			}
			close(what+" of "+tensor.Name, math.Sqrt(difference/sampled), 0, 1)
		}
	}

	p := numParameters(classes)
	params := scaled(unit(1, p), 0.5, 0.125)
	state := slices.Concat(params, scaled(unit(2, p), 0.5, 1.0/512), scaled(unit(3, p), 0, 1.0/(1<<18)))
	m.setState(state)
	grad := make([]float32, p)
	batch, content := referenceBatch()
	sums, err := m.Gradients(batch, m.split(grad))
	if err != nil {
		t.Fatal(err)
	}
	if sums.Weight != 3 {
		t.Errorf("weight %d of three samples", sums.Weight)
	}
	close("loss", sums.Loss, take(1)[0], sums.Loss)
	close("correct", float64(sums.Metrics[0]), take(1)[0], 1)
	logits := make([]float32, 4*classes)
	if err := m.Logits(content.Images, logits); err != nil {
		t.Fatal(err)
	}
	for i, want := range take(len(logits)) {
		close("logit", float64(logits[i]), want, 1)
	}
	compare("gradient", grad)

	for i := range grad {
		grad[i] /= 3
	}
	if err := m.Update(m.split(grad), 4); err != nil {
		t.Fatal(err)
	}
	change := make([]float32, p)
	for i, v := range m.state[:p] {
		change[i] = v - params[i]
	}
	compareChange(t, change, &rest)
	compare("first moment", m.state[p:2*p])
	compare("second moment", m.state[2*p:])
	if len(rest) != 0 {
		t.Errorf("%d reference values left over", len(rest))
	}
}

// compareChange checks the parameters' change to the rounding of the parameters.
func compareChange(t *testing.T, change []float32, rest *[]float64) {
	t.Helper()
	for _, tensor := range parameters(classes) {
		*rest = (*rest)[2:]
		for i := 0; i < tensor.Size(); i += max(1, tensor.Size()/512) {
			got, want := float64(change[tensor.Offset+i]), (*rest)[0]
			*rest = (*rest)[1:]
			if math.Abs(got-want) > 1e-5*math.Abs(want)+1e-8 {
				t.Errorf("change of %s[%d]: %g, Keras has %g", tensor.Name, i, got, want)
				return
			}
		}
	}
}

func someBatch(n int, key uint64) *evenweave.Batch {
	return &evenweave.Batch{Key: key, Content: someContent(n)}
}

func someContent(n int) *Content {
	c := &Content{Images: make([]byte, n*pixels), Labels: make([]uint8, n), Weights: make([]float32, n)}
	for i, u := range unit(5, n*pixels) {
		c.Images[i] = byte(u * 256)
	}
	for i := range n {
		c.Labels[i], c.Weights[i] = uint8(i%classes), 1
	}
	return c
}

// gradient is what Gradients gives for a batch, in slices that are no one piece of memory.
func gradient(t *testing.T, m *Model, b *evenweave.Batch) (evenweave.Sums, []float32) {
	t.Helper()
	grads := make([][]float32, len(m.all))
	for i, tensor := range m.all {
		grads[i] = make([]float32, tensor.Size())
	}
	sums, err := m.Gradients(b, grads)
	if err != nil {
		t.Error(err)
	}
	return sums, slices.Concat(grads...)
}

func equalBitsFromManyGoroutines(t *testing.T, m *Model) {
	one := func(key uint64) string {
		sums, grad := gradient(t, m, someBatch(4, key))
		return hashFloats([]float32{float32(sums.Loss)}, grad)
	}
	want := []string{one(0), one(1), one(1 << 32)}
	if want[0] == want[1] || want[0] == want[2] || want[1] == want[2] {
		t.Error("different keys gave equal bits")
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 6 {
				if k := (g + i) % 3; one([]uint64{0, 1, 1 << 32}[k]) != want[k] {
					t.Errorf("goroutine %d, call %d: other bits", g, i)
				}
			}
		})
	}
	wg.Wait()
}

func stateIsTheOneSourceOfTruth(t *testing.T, m *Model) {
	if err := m.Init(7); err != nil {
		t.Fatal(err)
	}
	before := slices.Clone(m.state)
	batch := someBatch(4, 1)
	_, grad := gradient(t, m, batch)
	b := make([]byte, 1)
	if err := m.Read(0, 4*40+2, b); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << 6
	if err := m.Write(0, 4*40+2, b); err != nil {
		t.Fatal(err)
	}
	if m.state[40] != math.Float32frombits(math.Float32bits(before[40])^1<<22) {
		t.Fatal("another bit was flipped")
	}
	whole := make([]float32, numParameters(classes))
	if _, err := m.Gradients(batch, m.split(whole)); err != nil {
		t.Fatal(err)
	}
	if slices.Equal(grad, whole) {
		t.Error("a flipped bit in the state did not change the gradient")
	}
	m.setState(before)
	if _, err := m.Gradients(batch, m.split(whole)); err != nil || !slices.Equal(grad, whole) {
		t.Errorf("slices of one piece of memory get another gradient than others: %v", err)
	}
	scattered := m.split(slices.Clone(grad))
	scattered[0] = slices.Clone(scattered[0])
	for _, bad := range []error{
		m.Update(scattered[1:], 0), m.Update([][]float32{grad}, 0), m.Update(m.split(grad), -1), m.Write(0, 1<<20, b),
		m.Write(18, 0, b), m.Read(-1, 0, b),
	} {
		if bad == nil {
			t.Error("bad arguments accepted")
		}
	}
	if !slices.Equal(before, m.state) {
		t.Error("a failed update changed the state")
	}
	if err := m.Update(scattered, 0); err != nil {
		t.Fatal(err)
	}
	after := slices.Clone(m.state)
	if slices.Equal(before, after) {
		t.Error("an update left the state as it was")
	}
	m.setState(before)
	if err := m.Update(m.split(grad), 0); err != nil || !slices.Equal(after, m.state) {
		t.Errorf("slices of one piece of memory get another update than others: %v", err)
	}
}

// paddingChangesNothing: samples of zero weight add nothing to sums or gradient.
func paddingChangesNothing(t *testing.T, m *Model) {
	c := someContent(4)
	clear(c.Weights)
	sums, grad := gradient(t, m, &evenweave.Batch{Key: 1, Content: c})
	if sums.Loss != 0 || sums.Weight != 0 || sums.Metrics[0] != 0 ||
		slices.ContainsFunc(grad, func(g float32) bool { return g != 0 }) {
		t.Errorf("padding gave %+v, or a gradient", sums)
	}
}

func logitsDoNotDependOnNeighbours(t *testing.T, m *Model) {
	if err := m.Init(2); err != nil {
		t.Fatal(err)
	}
	images := someContent(evaluationBatch + 3).Images
	all := make([]float32, (evaluationBatch+3)*classes)
	if err := m.Logits(images, all); err != nil {
		t.Fatal(err)
	}
	last := make([]float32, 3*classes)
	if err := m.Logits(images[evaluationBatch*pixels:], last); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(all[evaluationBatch*classes:], last) {
		t.Error("the padded last batch gave other logits")
	}
	if err := m.Logits(images[1:], all); err == nil {
		t.Error("a cut image was accepted")
	}
}

func initialStateAndLayout(t *testing.T, m *Model) {
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	// Pinned: a change breaks the promise that a seed gives one result.
	hash := hashFloats(m.state[:numParameters(classes)])
	if got := hash; got != "406bc7b271fe51bfae4c8cc88de69ed44a381c82cde1dd561baacbd3acd00da1" {
		t.Errorf("initial weights of seed 1 have hash %s", got)
	}
	if err := m.Init(2); err != nil || hashFloats(m.state[:numParameters(classes)]) == hash {
		t.Errorf("two seeds give the same weights: %v", err)
	}
	end := 0
	for i, tensor := range m.Tensors() {
		memory, err := m.tensor(i)
		if err != nil || &memory[0] != &m.state[end] || len(memory) != tensor.Elements() {
			t.Errorf("%s does not lie at %d: %v", tensor.Name, end, err)
		}
		end += tensor.Elements()
	}
	total := 0
	for _, layer := range m.Layers() {
		total += layer.Parameters
	}
	if end != len(m.state) || total != numParameters(classes) {
		t.Errorf("layout covers %d of %d values, layers %d of %d parameters", end, len(m.state), total,
			numParameters(classes))
	}
}

func TestOpenExplainsBadOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"choose auto, xla, xla:cuda or go": {Backend: "tpu", MicroBatch: 1},
		"choose one of tutorial":           {Backend: "go", Recipe: "x", MicroBatch: 1},
		"must be at least 1":               {Backend: "go"},
	} {
		if _, err := Open(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v does not say %q", o, err, want)
		}
	}
}

// split cuts a flat gradient into tensors, which join finds to be one piece.
func (m *Model) split(flat []float32) [][]float32 {
	grads := make([][]float32, len(m.all))
	for i, t := range m.all {
		grads[i] = flat[t.Offset : t.Offset+t.Size()]
	}
	return grads
}
