package gomlx

import (
	"context"
	"image"
	"slices"
	"strconv"
	"strings"

	"evenweave"
	"evenweave/evaluation"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/train/metric"
)

// kind is what the first prediction is of, found from its shape, the first label's, and the loss.
type kind int

const (
	ofNothing   kind = iota
	ofClasses        // a score for each class
	ofValues         // a number
	ofSequences      // scores of classes for each place of a sequence
)

// EvaluateDetails implements evenweave.DetailedEvaluator. Classifiers show their confusion matrix, ratios by class, the
// most confident mistakes, and how far confidence can be trusted; what predicts a number shows its errors; what
// predicts each place of a sequence, the loss by position. Of several predictions it is the first.
func (m *Model) EvaluateDetails(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, evenweave.Details,
	error) {
	run := &measured{shown: &shown{names: m.config.Classes, samples: data.Len()}}
	if c, ok := data.(evenweave.Classed); ok && len(run.shown.names) == 0 {
		run.shown.names = c.Classes()
	}
	figures, err := m.evaluate(ctx, data, run)
	if err != nil {
		return nil, evenweave.Details{}, err
	}
	var picture func(int) (image.Image, error)
	if p, ok := data.(evenweave.Pictured); ok {
		picture = p.Picture
	}
	details, err := run.shown.details(picture)
	if err != nil {
		m.setup.Log.Warn("an evaluation shows its figures alone", "error", err)
	}
	return figures, details, nil
}

// shown collects what an evaluation shows; at most one of the three is made.
type shown struct {
	names     []string // of classes
	samples   int
	classes   *evaluation.Classes
	values    *evaluation.Values
	positions *evaluation.Positions
	err       error // nothing is collected after it
}

func (s *shown) details(picture func(int) (image.Image, error)) (evenweave.Details, error) {
	switch {
	case s.err != nil:
		return evenweave.Details{}, s.err
	case s.classes != nil:
		return s.classes.Result().Details(picture)
	case s.values != nil:
		return s.values.Details(), nil
	case s.positions != nil:
		return s.positions.Details(), nil
	}
	return evenweave.Details{}, nil
}

// add takes the outputs of a micro-batch: what is scored, and, of each sample or place, the label and the weight.
func (s *shown) add(k kind, samples []int, results []compute.Buffer) error {
	var flats [3][]float32
	for i, r := range results {
		shape, err := r.Shape()
		if err != nil {
			return err
		}
		flats[i] = make([]float32, shape.Size())
		if err := r.ToFlatData(flats[i]); err != nil {
			return err
		}
	}
	if s.err == nil {
		s.err = s.count(k, samples, flats[0], flats[1], flats[2])
	}
	return nil
}

func (s *shown) count(k kind, samples []int, scores, labels, weights []float32) (err error) {
	width := len(scores) / max(1, len(labels))
	switch {
	case k == ofClasses && s.classes == nil:
		if s.classes, err = evaluation.NewClasses(namesOf(s.names, width)); err != nil {
			return err
		}
	case k == ofValues && s.values == nil:
		s.values = evaluation.NewValues(s.samples)
	case k == ofSequences && s.positions == nil:
		s.positions = evaluation.NewPositions(len(scores))
	}
	for i := range labels {
		switch {
		case k == ofSequences: // sums: of losses, of right places, and of weights
			err = s.positions.Add(i, float64(scores[i]), float64(labels[i]), float64(weights[i]))
		case weights[i] == 0:
		case k == ofClasses:
			err = s.classes.Add(samples[i], int(labels[i]), scores[i*width:(i+1)*width])
		case k == ofValues:
			err = s.values.Add(samples[i], float64(labels[i]), float64(scores[i]))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// namesOf are the names of n classes: numbers, where there are too few.
func namesOf(names []string, n int) []string {
	names = slices.Clone(names[:min(n, len(names))])
	for i := len(names); i < n; i++ {
		names = append(names, strconv.Itoa(i))
	}
	return names
}

// show finds what the first prediction is of, and gives what shown.add takes, as float32.
func (b *builder) show(f *forward, n int) (kind, []*graph.Node) {
	if len(f.labels) == 0 || len(f.predictions) == 0 || !f.predictions[0].DType().IsFloat() {
		return ofNothing, nil
	}
	label, scores := f.labels[0], wide(f.predictions[0])
	l, p, lossOf := label.Shape(), scores.Shape(), b.config.lossName()
	single, whole := l.Size() == n, l.DType.IsInt() || l.DType == dtypes.Bool
	switch {
	case p.Rank() == 3 && l.Size() == n*p.Dimensions[1] && l.DType.IsInt():
		weights := b.weights(f, n, p.Dimensions[1])
		if weights == nil {
			return ofNothing, nil
		}
		return ofSequences, places(graph.Reshape(label, n, -1), scores, weights)
	case p.Rank() == 2 && p.Dimensions[1] > 1 && single && whole:
	case p.Rank() == 2 && p.Dimensions[1] > 1 && lossOf == "CategoricalCrossEntropyLogits" &&
		slices.Equal(l.Dimensions, p.Dimensions):
		label = graph.ArgMax(wide(label), -1)
	case p.Size() == n && single && (b.binary(lossOf) || l.DType == dtypes.Bool):
		scores = graph.Reshape(scores, n, 1)
		if lossOf == "BinaryCrossentropy" { // predictions are probabilities
			scores = graph.Sub(graph.Log(graph.MaxScalar(scores, 1e-30)),
				graph.Log(graph.MaxScalar(graph.OneMinus(scores), 1e-30)))
		}
		scores = graph.Concatenate([]*graph.Node{graph.ZerosLike(scores), scores}, -1)
	case p.Size() == n && single:
		return ofValues, []*graph.Node{graph.Reshape(scores, n), graph.Reshape(wide(label), n), b.sampled(f, n)}
	default:
		return ofNothing, nil
	}
	return ofClasses, []*graph.Node{scores, graph.Reshape(wide(label), n), b.sampled(f, n)}
}

func wide(x *graph.Node) *graph.Node { return graph.ConvertDType(x, dtypes.Float32) }

// binary says that labels are 0 or 1: by the loss, or by a metric that is an accuracy.
func (b *builder) binary(lossOf string) bool {
	return strings.HasPrefix(lossOf, "BinaryCrossentropy") ||
		slices.ContainsFunc(b.config.Metrics, func(k metric.Interface) bool {
			return k.MetricType() == metric.AccuracyMetricType
		})
}

// sampled is a weight for each sample.
func (b *builder) sampled(f *forward, n int) *graph.Node {
	if w := b.weights(f, n, 1); w != nil {
		return graph.Reshape(w, n)
	}
	return graph.Ones(f.graph, shapes.Make(dtypes.Float32, n))
}

// weights are those of so many places of each sample: further labels, where the loss is GoMLX's, which takes a mask and
// weights there. nil: places have weights that only Config.Weight knows.
func (b *builder) weights(f *forward, n, places int) *graph.Node {
	weights := graph.Ones(f.graph, shapes.Make(dtypes.Float32, n, places))
	known := b.config.Weight == nil
	for _, extra := range f.labels[1:] {
		if b.config.lossName() != "" && extra.Shape().Size() == n*places {
			weights, known = graph.Mul(weights, graph.Reshape(wide(extra), n, places)), true
		}
	}
	if !known {
		return nil
	}
	return weights
}

// places are sums over the sequences of a micro-batch, by place: of losses, of right predictions, and of weights.
func places(label, scores, weights *graph.Node) []*graph.Node {
	one := graph.OneHot(label, scores.Shape().Dimensions[2], dtypes.Float32)
	loss := graph.Neg(graph.ReduceSum(graph.Mul(one, graph.LogSoftmax(scores)), -1))
	right := wide(graph.Equal(graph.ArgMax(scores, -1, label.DType()), label))
	sum := func(x *graph.Node) *graph.Node { return graph.ReduceSum(graph.Mul(x, weights), 0) }
	return []*graph.Node{sum(loss), sum(right), graph.ReduceSum(weights, 0)}
}

// lossName is the name of a loss function of GoMLX's; "" for any other.
func (c *Config) lossName() string {
	_, name, _ := strings.Cut(c.lossFunction(), "github.com/gomlx/gomlx/ml/train/loss.")
	return name
}
