package gomlx

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"evenweave"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/metric"
)

// evaluator is the program that measures a number of samples. Metrics of GoMLX keep sums in variables: an evaluation
// passes them from batch to batch, beside the state.
type evaluator struct {
	*program
	kept    []*model.Variable // that metrics keep
	metrics int
	loss    bool
	kind    kind // of what is shown: the outputs after those
}

// Evaluate implements evenweave.Evaluator: Config.Metrics in their order, then the loss without regularization. Samples
// are measured in the order of data, a micro-batch at a time, and each once.
func (m *Model) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	return m.evaluate(ctx, data, &measured{})
}

func (m *Model) evaluate(ctx context.Context, data evenweave.Data, run *measured) ([]evenweave.Figure, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	run.values, run.metrics = map[string][]byte{}, make([]float64, len(m.config.Metrics))
	size := m.setup.MicroBatch
	b := &evenweave.Batch{Seed: m.setup.Seed}
	for at := 0; at < data.Len(); at += size {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		b.Samples, b.MicroBatch = b.Samples[:0], at/size
		for i := at; i < min(at+size, data.Len()); i++ {
			b.Samples = append(b.Samples, int32(i))
		}
		if err := data.Load(b); err != nil {
			return nil, err
		}
		if err := m.measure(b, run); err != nil {
			return nil, err
		}
	}
	return run.figures(m.config.Metrics)
}

// measured is the course of an evaluation.
type measured struct {
	values       map[string][]byte // of the variables that metrics keep, by path
	metrics      []float64         // of all samples so far
	hasLoss      bool
	loss, weight float64
	shown        *shown // nil: nothing is shown
}

func (m *Model) measure(b *evenweave.Batch, run *measured) error {
	content, rows, err := m.content(b)
	if err != nil || len(rows) == 0 {
		return err
	}
	e, err := m.evaluation(len(rows))
	if err != nil {
		return err
	}
	run.hasLoss = e.loss
	others := map[string][]byte{generatorPath(): generatorState(0)}
	for _, v := range e.kept {
		if run.values[v.Path()] == nil {
			value := newFlat(v.Shape())
			if err := v.MustValue().ConstFlatData(func(flat any) { copy(bytesOf(value), bytesOf(flat)) }); err != nil {
				return err
			}
			run.values[v.Path()] = bytesOf(value)
		}
		others[v.Path()] = run.values[v.Path()]
	}
	results, err := m.call(e.program, content, others)
	if err != nil {
		return err
	}
	samples := make([]int, len(rows))
	for i, row := range rows {
		samples[i] = int(b.Samples[row])
	}
	return e.take(results, samples, run)
}

// take reads loss, weight and metrics, then what metrics keep, then what is shown of the samples.
func (e *evaluator) take(results []compute.Buffer, samples []int, run *measured) (err error) {
	defer func() { err = errors.Join(err, discard(results)) }()
	totals := make([]float64, 2+e.metrics)
	if err := results[0].ToFlatData(totals); err != nil {
		return err
	}
	if totals[1] > 0 {
		run.loss, run.weight = run.loss+totals[0]*totals[1], run.weight+totals[1]
	}
	copy(run.metrics, totals[2:])
	for i, v := range e.kept {
		value := newFlat(v.Shape())
		if err := results[1+i].ToFlatData(value); err != nil {
			return err
		}
		run.values[v.Path()] = bytesOf(value)
	}
	if run.shown != nil && e.kind != ofNothing {
		return run.shown.add(e.kind, samples, results[1+len(e.kept):])
	}
	return nil
}

func (r *measured) figures(metrics []metric.Interface) (all []evenweave.Figure, err error) {
	if r.weight == 0 && r.hasLoss {
		return nil, errors.New("the samples have weight 0 in all: there is nothing to measure")
	}
	kinds := map[string]int{}
	for _, k := range metrics {
		kinds[k.MetricType()]++
	}
	for i, k := range metrics {
		f := evenweave.Figure{Name: k.MetricType(), Value: r.metrics[i], Better: evenweave.Lower}
		if k.MetricType() == metric.AccuracyMetricType {
			f.Better = evenweave.Higher
		}
		if kinds[f.Name] > 1 || f.Name == metric.LossMetricType || f.Name == "" {
			f.Name = strings.ToLower(strings.ReplaceAll(k.Name(), " ", "_"))
		}
		all = append(all, f)
	}
	if r.hasLoss {
		all = append(all, evenweave.Figure{Name: "loss", Value: r.loss / r.weight, Better: evenweave.Lower})
	}
	if len(all) == 0 {
		return nil, errors.New("there is nothing to measure: set Config.Metrics or Config.Loss")
	}
	return all, nil
}

// evaluation is the program for n samples, compiled when it is first needed.
func (m *Model) evaluation(n int) (e *evaluator, err error) {
	m.building.Lock()
	defer m.building.Unlock()
	if e := m.metrics[n]; e != nil {
		return e, nil
	}
	e, f, outputs, err := m.builder.evaluation(n)
	if err != nil {
		return nil, err
	}
	if e.program, err = m.compile(f.graph, outputs); err != nil {
		return nil, err
	}
	m.metrics[n] = e
	return e, nil
}

// CheckEvaluation implements evenweave.Checker: it builds the graph and does not compile it.
func (m *Model) CheckEvaluation() error {
	m.building.Lock()
	defer m.building.Unlock()
	_, f, _, err := m.builder.evaluation(m.setup.MicroBatch)
	if err == nil {
		f.graph.Finalize()
	}
	return err
}

func (b *builder) evaluation(n int) (e *evaluator, f *forward, outputs []*graph.Node, err error) {
	defer guard.RecoverThrown(&err, "building the evaluation")
	known := map[string]bool{generatorPath(): true}
	for v := range b.store.IterVariables() {
		known[v.Path()] = true
	}
	f = b.forward("evaluation", n, false)
	e = &evaluator{metrics: len(b.config.Metrics), loss: f.loss != nil}
	total := func(x *graph.Node) *graph.Node { return graph.ConvertDType(x, dtypes.Float64) }
	totals := []*graph.Node{graph.ScalarZero(f.graph, dtypes.Float64), total(b.weight(f, n))}
	if main := train.GetMainLoss(f.graph); main != nil {
		totals[0] = total(main)
	}
	for _, k := range b.config.Metrics {
		value, err := b.metric(k, f)
		if err != nil {
			return nil, nil, nil, err
		}
		totals = append(totals, total(value))
	}
	outputs = []*graph.Node{graph.Stack(totals, 0)}
	for v := range b.store.IterVariables() {
		metrics := strings.HasPrefix(v.Path(), "/"+metric.Scope+"/")
		if !v.InUseByGraph(f.graph) || known[v.Path()] && !metrics {
			continue
		}
		if !v.HasValue() {
			panic(fmt.Errorf("evaluation uses the variable %s, which training does not: it has no value", v.Path()))
		}
		e.kept, outputs = append(e.kept, v), append(outputs, v.NodeValue(f.graph))
	}
	var shown []*graph.Node
	e.kind, shown = b.show(f, n)
	return e, f, append(outputs, shown...), nil
}

// metric is the value of a metric after a batch.
func (b *builder) metric(k metric.Interface, f *forward) (value *graph.Node, err error) {
	defer guard.RecoverThrown(&err, "metric "+k.Name())
	if _, ok := k.(metric.UpdateGo); ok {
		return nil, fmt.Errorf("metric %s is computed by Go, batch by batch: only those of a graph are supported",
			k.Name())
	}
	before := b.kept(f)
	value = k.UpdateGraph(b.store.RootScope(), f.labels, f.predictions)
	switch {
	case b.kept(f) == before:
		return nil, fmt.Errorf("metric %s keeps nothing between batches: it would be that of the last one; use a mean "+
			"(metric.NewMeanMetric)", k.Name())
	case !value.IsScalar():
		return nil, fmt.Errorf("metric %s has the shape %s: expected a scalar, as graph.ReduceAllMean gives", k.Name(),
			value.Shape())
	}
	return value, nil
}

// kept is the number of variables that metrics keep in a graph.
func (b *builder) kept(f *forward) (n int) {
	for v := range b.store.IterVariables() {
		if strings.HasPrefix(v.Path(), "/"+metric.Scope+"/") && v.InUseByGraph(f.graph) {
			n++
		}
	}
	return n
}
