package gomlx

import (
	"errors"
	"fmt"

	"evenweave/dataset"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// Predict returns the model's predictions for samples, as the model computes them when it is not trained: a tensor for
// each of Config.Inputs gives one for each prediction. It may be called by several goroutines at once.
func (m *Model) Predict(inputs ...dataset.Flat) (outputs []dataset.Flat, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	switch {
	case m.closed:
		return nil, errClosed
	case len(inputs) != len(m.config.Inputs):
		return nil, fmt.Errorf("%d inputs, Config has %d", len(inputs), len(m.config.Inputs))
	}
	size, err := inputs[0].SampleBytes()
	if err != nil {
		return nil, err
	}
	n := len(inputs[0].Bytes) / size
	for at := 0; at < n; at += m.setup.MicroBatch {
		rows := make([]int, min(m.setup.MicroBatch, n-at))
		for i := range rows {
			rows[i] = at + i
		}
		var content [][]byte
		for i, in := range inputs {
			bytes, err := rowsOf(in, m.config.Inputs[i], rows, n)
			if err != nil {
				return nil, fmt.Errorf("inputs[%d]: %w", i, err)
			}
			content = append(content, bytes)
		}
		if outputs, err = m.predict(content, len(rows), outputs); err != nil {
			return nil, err
		}
	}
	return outputs, nil
}

// predict appends the predictions for n samples.
func (m *Model) predict(content [][]byte, n int, outputs []dataset.Flat) ([]dataset.Flat, error) {
	p, err := m.predictions(n)
	if err != nil {
		return nil, err
	}
	results, err := m.call(p, content, map[string][]byte{generatorPath(): generatorState(0)})
	if err != nil {
		return nil, err
	}
	if outputs == nil {
		outputs = make([]dataset.Flat, len(results))
	}
	for i, r := range results {
		err = errors.Join(err, appendResult(&outputs[i], r, n))
	}
	return outputs, errors.Join(err, discard(results))
}

func appendResult(to *dataset.Flat, r compute.Buffer, n int) error {
	shape, err := r.Shape()
	if err != nil {
		return err
	}
	if shape.Rank() < 1 || shape.Dimensions[0] != n {
		return fmt.Errorf("the model predicts %s for %d samples: its first axis is not that of samples", shape, n)
	}
	flat := newFlat(shape)
	if err := r.ToFlatData(flat); err != nil {
		return err
	}
	to.Type, to.Shape = types()[shape.DType], shape.Dimensions[1:]
	to.Bytes = append(to.Bytes, bytesOf(flat)...)
	return nil
}

// predictions is the program for n samples, compiled when it is first needed.
func (m *Model) predictions(n int) (*program, error) {
	m.building.Lock()
	defer m.building.Unlock()
	if p := m.predicting[n]; p != nil {
		return p, nil
	}
	g, outputs, err := m.builder.predictions(n)
	if err == nil {
		m.predicting[n], err = m.compile(g, outputs)
	}
	return m.predicting[n], err
}

func (b *builder) predictions(n int) (_ *graph.Graph, outputs []*graph.Node, err error) {
	defer guard.RecoverThrown(&err, "building the predictions")
	f := b.predict("predictions", n, false)
	if len(f.predictions) == 0 {
		panic(errors.New("the model returns no prediction"))
	}
	return f.graph, f.predictions, nil
}
