package verify

import (
	"encoding/binary"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	"evenweave"
	"evenweave/internal/schedule"
)

// line is a correct model (y = ax + b by SGD with momentum) with places for faults.
type line struct {
	values [4]float32 // a, b, and their momenta
	calls  *atomic.Int64

	gradients func(m *line, b *evenweave.Batch, grads [][]float32)
	sums      func(m *line, s *evenweave.Sums)
	update    func(m *line)
	initial   func(m *line)
	read      func(offset int64) int64
	tensors   func(all []evenweave.Tensor)
}

func (m *line) Tensors() []evenweave.Tensor {
	all := []evenweave.Tensor{
		{Name: "line", Type: evenweave.Float32, Shape: []int{2}, Role: evenweave.Trained},
		{Name: "momentum", Type: evenweave.Float32, Shape: []int{2}},
	}
	if m.tensors != nil {
		m.tensors(all)
	}
	return all
}

func (m *line) Init(seed uint64) error {
	m.values = [4]float32{float32(seed) / 8, 0.5}
	if m.initial != nil {
		m.initial(m)
	}
	return nil
}

func (m *line) Read(tensor int, offset int64, p []byte) error {
	if m.read != nil {
		offset = m.read(offset)
	}
	b, err := binary.Append(nil, binary.LittleEndian, m.values[2*tensor:2*tensor+2])
	copy(p, b[offset:])
	return err
}

func (m *line) Write(tensor int, offset int64, p []byte) error {
	b, err := binary.Append(nil, binary.LittleEndian, m.values[2*tensor:2*tensor+2])
	if err != nil {
		return err
	}
	copy(b[offset:], p)
	_, err = binary.Decode(b, binary.LittleEndian, m.values[2*tensor:2*tensor+2])
	return err
}

func (m *line) Gradients(b *evenweave.Batch, grads [][]float32) (sums evenweave.Sums, err error) {
	clear(grads[0])
	for _, x := range b.Content.([]float32) {
		if math.IsNaN(float64(x)) {
			continue
		}
		d := m.values[0]*x + m.values[1] - (2*x - 1)
		grads[0][0] += d * x
		grads[0][1] += d
		sums.Loss += float64(d * d / 2)
		sums.Weight++
	}
	if m.gradients != nil {
		m.gradients(m, b, grads)
	}
	if m.sums != nil {
		m.sums(m, &sums)
	}
	return sums, nil
}

func (m *line) Update(mean [][]float32, _ int64) error {
	for i, g := range mean[0] {
		m.values[2+i] = 0.5*m.values[2+i] + g
		m.values[i] -= 0.125 * m.values[2+i]
	}
	if m.update != nil {
		m.update(m)
	}
	return nil
}

func (m *line) Close() error { return nil }

// numbers are samples 0, 1/64, 2/64...
type numbers struct{ padding float32 }

func (numbers) Len() int       { return 100 }
func (numbers) Digest() string { return "numbers" }
func (n numbers) Load(b *evenweave.Batch) error {
	var content []float32
	for _, i := range b.Samples {
		x := float32(i) / 64
		if i == evenweave.Padding {
			x = n.padding
		}
		content = append(content, x)
	}
	b.Content = content
	return nil
}

var options = Options{
	Plan:  schedule.Plan{Seed: 1, Samples: 100, GlobalBatch: 32, MicroBatch: 8},
	Steps: 3,
	Most:  4,
	Lanes: 3,
}

func TestACorrectModelPasses(t *testing.T) {
	var traces [2]Trace
	for i := range traces {
		var err error
		if traces[i], err = Run(t.Context(), &line{}, numbers{float32(math.NaN())}, options); err != nil {
			t.Fatal(err)
		}
	}
	if err := Differ(traces[0], traces[1], "again"); err != nil {
		t.Error(err)
	}
	if len(traces[0]) != 2+3*(4*2+2) {
		t.Errorf("%d lines", len(traces[0]))
	}
}

func TestMetricsAreCounted(t *testing.T) {
	o := options
	o.Metrics = []string{"perplexity", "mae"}
	_, err := Run(t.Context(), &line{}, numbers{float32(math.NaN())}, o)
	if err == nil || !strings.Contains(err.Error(), `Task.Metrics names 2: ["perplexity" "mae"]`) {
		t.Errorf("got %v", err)
	}
}

// Each fault that breaks exactness is found, and what it breaks is named.
func TestFaultsAreNamed(t *testing.T) {
	count := 0 // of faults that outlive a model, as the clock does
	for name, c := range map[string]struct {
		model   line
		padding float32
		want    string
	}{
		"a generator with state": {model: line{gradients: func(m *line, b *evenweave.Batch, g [][]float32) {
			if b.Samples[0] != evenweave.Padding {
				g[0][1] += float32(m.calls.Add(1)) / 1024
			}
		}}, want: "step 1, micro-batch 0: the gradient of line differs when it is computed again: "},
		"sums with state": {model: line{sums: func(m *line, s *evenweave.Sums) {
			if s.Weight > 0 {
				s.Loss += float64(m.calls.Add(1))
			}
		}}, want: "the sum of losses, weights or metrics differs when it is computed again: "},
		"gradients that are added": {model: line{gradients: func(_ *line, b *evenweave.Batch, g [][]float32) {
			if b.Samples[0] == evenweave.Padding {
				g[0][1] = float32(math.NaN())
			}
		}}, want: "must overwrite every element"},
		"lanes that share memory": {model: line{gradients: func(m *line, b *evenweave.Batch, g [][]float32) {
			// each is computed twice before the lanes begin
			if b.Samples[0] != evenweave.Padding && m.calls.Add(1) > 2*4 {
				g[0][0]++
			}
		}}, want: "the gradient of line differs when it is computed on 3 lanes"},
		"another process": {model: line{initial: func(m *line) {
			count++
			m.values[1] = float32(count)
		}}, want: "the initial value of line differs elsewhere"},
		"an update by the clock": {model: line{update: func(m *line) {
			count++
			m.values[3] += float32(count)
		}}, want: "after step 1: momentum differs elsewhere"},
		"padding that counts": {padding: 1, want: "a micro-batch of padding alone has loss"},
		"offsets that are not heeded": {model: line{read: func(int64) int64 { return 0 }},
			want: "line read from byte 4"},
		"two tensors of one name": {model: line{tensors: func(all []evenweave.Tensor) { all[1].Name = "line" }},
			want: "tensor 1"},
		"an unknown type": {model: line{tensors: func(all []evenweave.Tensor) { all[1].Type = "complex64" }},
			want: "complex64"},
		"no gradients": {model: line{tensors: func(all []evenweave.Tensor) { all[0].Role = evenweave.Kept }},
			want: "no tensor"},
		"trained after kept": {model: line{tensors: func(all []evenweave.Tensor) {
			all[0].Role, all[1].Role = evenweave.Kept, evenweave.Trained
		}}, want: "trained tensors come first"},
		"not finite": {model: line{gradients: func(_ *line, b *evenweave.Batch, g [][]float32) {
			if b.Step == 2 && b.Samples[0] != evenweave.Padding {
				g[0][1] = float32(math.Inf(1))
			}
		}}, want: "step 3: micro-batch 0: the gradient of line[1] is +Inf"},
	} {
		t.Run(name, func(t *testing.T) {
			padding := c.padding
			if padding == 0 {
				padding = float32(math.NaN())
			}
			var first Trace
			for range 2 {
				m := c.model
				m.calls = &atomic.Int64{}
				trace, err := Run(t.Context(), &m, numbers{padding}, options)
				if err == nil && first != nil {
					err = Differ(first, trace, "elsewhere")
				}
				if first = trace; err != nil {
					if !strings.Contains(err.Error(), c.want) {
						t.Errorf("got %v, want %s", err, c.want)
					}
					return
				}
			}
			t.Error("nothing was found")
		})
	}
}
