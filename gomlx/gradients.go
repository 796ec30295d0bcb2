package gomlx

import (
	"errors"
	"fmt"
	"math"

	"evenweave"
	"evenweave/dataset"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// Gradients implements evenweave.Model. Each call uses one thread.
func (m *Model) Gradients(b *evenweave.Batch, grads [][]float32) (sums evenweave.Sums, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	sums.Metrics = make([]int64, len(m.config.Counts))
	content, rows, err := m.content(b)
	if err == nil {
		err = m.check(grads)
	}
	if err != nil {
		return sums, err
	}
	if len(rows) == 0 {
		clearAll(grads)
		return sums, nil
	}
	p, err := m.gradients(len(rows))
	if err != nil {
		return sums, err
	}
	results, err := m.call(p, content, map[string][]byte{generatorPath(): generatorState(b.Key)})
	if err != nil {
		return sums, err
	}
	return m.sum(results, grads)
}

// gradients is the program for n samples, compiled when it is first needed.
func (m *Model) gradients(n int) (*program, error) {
	m.building.Lock()
	defer m.building.Unlock()
	if p := m.of[n]; p != nil {
		return p, nil
	}
	g, err := m.builder.gradientsOf(n)
	if err == nil {
		m.of[n], err = m.compile(g.Graph, g.outputs)
	}
	return m.of[n], err
}

func (b *builder) gradientsOf(n int) (g *gradients, err error) {
	defer guard.RecoverThrown(&err, fmt.Sprintf("building the gradients of %d samples", n))
	return b.gradients(n), nil
}

// call runs a program on samples and on other arguments by name.
func (m *Model) call(p *program, content [][]byte, others map[string][]byte) ([]compute.Buffer, error) {
	a, err := p.take()
	if err != nil {
		return nil, err
	}
	defer p.put(a)
	for i, bytes := range content {
		name := inputName(i)
		if at := i - len(m.config.Inputs); at >= 0 {
			name = labelName(at)
		}
		err = errors.Join(err, a.set(name, bytes))
	}
	for name, bytes := range others {
		err = errors.Join(err, a.set(name, bytes))
	}
	if err != nil {
		return nil, err
	}
	return p.run(a)
}

// sum takes the results of a gradients' program.
func (m *Model) sum(results []compute.Buffer, grads [][]float32) (s evenweave.Sums, err error) {
	defer func() { err = errors.Join(err, discard(results)) }()
	for i, g := range grads {
		if err := results[i].ToFlatData(g); err != nil {
			return s, fmt.Errorf("the gradient of %s: %w", m.state[i].Name, err)
		}
	}
	totals := make([]float32, 2+len(m.config.Counts))
	if err := results[len(grads)].ToFlatData(totals); err != nil {
		return s, err
	}
	parts := m.config.fractions()
	weight := math.RoundToEven(float64(totals[1]) * parts)
	switch {
	case !(weight >= 0 && weight < 1<<40):
		return s, fmt.Errorf("Config.Weight gives a micro-batch the weight %v: expected a number from 0 on", totals[1])
	case weight != float64(totals[1])*parts && !m.config.Fractions:
		return s,
			fmt.Errorf("Config.Weight gives a micro-batch the weight %v: set Config.Fractions for weights that are no "+
				"whole numbers", totals[1])
	}
	s.Loss, s.Weight, s.Metrics = float64(totals[0]), int64(weight), make([]int64, len(m.config.Counts))
	if weight == 0 { // a mean of nothing may be NaN
		s.Loss = 0
		clearAll(grads)
		return s, nil
	}
	for i := range s.Metrics {
		s.Metrics[i] = int64(math.RoundToEven(float64(totals[2+i]) * parts))
		if s.Metrics[i] > s.Weight {
			m.warned.Do(func() {
				m.setup.Log.Warn("Config.Counts counts more than a micro-batch weighs: count with the weights of "+
					"Config.Weight, as CorrectBy does", "count", i, "counted", totals[2+i], "weight", totals[1])
			})
		}
	}
	return s, nil
}

// content gathers the samples of a batch that are no padding, its rows: their bytes, for each input and label.
func (m *Model) content(b *evenweave.Batch) (all [][]byte, rows []int, err error) {
	c, ok := b.Content.(*dataset.Content)
	if !ok {
		return nil, nil, fmt.Errorf("a batch of %T: this model takes a *dataset.Content", b.Content)
	}
	if m.closed {
		return nil, nil, errClosed
	}
	for i, w := range c.Weights {
		if w != 0 && w != 1 {
			return nil, nil,
				fmt.Errorf("sample %d has weight %v: 0 is padding and 1 a sample; weights of samples are a label "+
					"of their own", b.Samples[i], w)
		}
		if w == 1 {
			rows = append(rows, i)
		}
	}
	for i, flats := range [][]dataset.Flat{c.Inputs, c.Labels} {
		what, want := []string{"inputs", "labels"}[i], m.config.Inputs
		if i == 1 {
			want = m.config.Labels
		}
		if len(flats) != len(want) {
			return nil, nil, fmt.Errorf("the data have %d %s, Config has %d", len(flats), what, len(want))
		}
		for j, f := range flats {
			bytes, err := rowsOf(f, want[j], rows, len(c.Weights))
			if err != nil {
				return nil, nil, fmt.Errorf("%s[%d]: %w", what, j, err)
			}
			all = append(all, bytes)
		}
	}
	return all, rows, nil
}

// CheckBatch implements evenweave.Checker.
func (m *Model) CheckBatch(b *evenweave.Batch) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, _, err := m.content(b)
	return err
}

// generatorState is GoMLX's, of three words, for the key of a micro-batch.
func generatorState(key uint64) []byte {
	words, g := make([]uint64, graph.RNGStateShape.Size()), evenweave.NewGenerator(key)
	for i := range words {
		words[i] = g.Uint64()
	}
	return bytesOf(words)
}
