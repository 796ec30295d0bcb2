package gomlx

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"evenweave"
)

// following is a language model of 12 tokens that is all but sure that 6 comes after 5, in a window of 4.
func following(t *testing.T, change func(*Config)) *Model {
	c := Config{
		Model: func(scope *model.Scope, tokens *graph.Node) *graph.Node {
			sure := scope.VariableWithValue("sure", float32(50)).NodeValue(tokens)
			return graph.Mul(graph.OneHot(graph.AddScalar(tokens, 1), 12, dtypes.Float32), sure)
		},
		Loss:   func(_, predictions []*graph.Node) *graph.Node { return graph.ReduceAllMean(predictions[0]) },
		Inputs: []shapes.Shape{shapes.Make(dtypes.Int32, 4)},
	}
	change(&c)
	m := open(t, evenweave.Setup{Backend: "go", MicroBatch: 1, EvaluateOnly: true}, c)
	if err := m.Init(1); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestContinue: each token is drawn from the logits at the last known place, in the window and beyond it; the same seed
// draws the same tokens.
func TestContinue(t *testing.T) {
	m := following(t, func(*Config) {})
	for _, from := range [][]int32{{2}, {0, 0, 0, 2}, {9, 9, 9, 9, 9, 1, 2}} {
		got, err := m.Continue(t.Context(), from, Sampling{Tokens: 6})
		if want := append(slices.Clone(from), 3, 4, 5, 6, 7, 8); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %v, %v", from, got, err)
		}
	}
	var drawn [3][]int32
	for i, seed := range []uint64{1, 1, 2} {
		var err error
		drawn[i], err = m.Continue(t.Context(), []int32{1}, Sampling{Tokens: 20, Temperature: 1000, Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(drawn[0], drawn[1]) || slices.Equal(drawn[0], drawn[2]) {
		t.Errorf("%v", drawn)
	}
}

// TestWhatCannotBeContinued: a sequence or a model that is none of tokens is refused by what is wrong with it.
func TestWhatCannotBeContinued(t *testing.T) {
	one := func(*Config) {}
	for says, row := range map[string]struct {
		tokens []int32
		change func(*Config)
	}{
		"no token":            {nil, one},
		"the model knows 12":  {[]int32{12}, one},
		"tokens -1 to 3":      {[]int32{3, -1}, one},
		"expected one window": {[]int32{1}, func(c *Config) { c.Inputs[0] = shapes.Make(dtypes.Int32, 4, 1) }},
		"predicts float32[4]": {[]int32{1}, func(c *Config) {
			logits := c.Model.(func(*model.Scope, *graph.Node) *graph.Node)
			c.Model = func(scope *model.Scope, tokens *graph.Node) *graph.Node {
				return graph.ReduceMax(logits(scope, tokens), -1)
			}
		}},
	} {
		got, err := following(t, row.change).Continue(t.Context(), row.tokens, Sampling{Tokens: 1})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, %v: expected an error that says %q", got, err, says)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := following(t, one).Continue(ctx, []int32{1}, Sampling{Tokens: 1}); !errors.Is(err, stop) {
		t.Errorf("after its context has ended: %v", err)
	}
}

// TestDraw: each comes as often as softmax says, at any temperature; large logits are no overflow.
func TestDraw(t *testing.T) {
	logits := []float32{1000, 1001, 998, float32(math.Inf(-1))}
	const n = 20000
	if got := Draw(logits, 0, evenweave.NewGenerator(1)); got != 1 {
		t.Errorf("temperature 0: %d, expected the likeliest", got)
	}
	for _, temperature := range []float64{0.001, 0.5, 1, 100} {
		random, counts := evenweave.NewGenerator(1), [4]int{}
		for range n {
			counts[Draw(logits, temperature, random)]++
		}
		total := 0.0
		for _, l := range logits {
			total += math.Exp(float64(l-1001) / temperature)
		}
		for i, l := range logits {
			want := math.Exp(float64(l-1001)/temperature) / total
			if got := float64(counts[i]) / n; math.Abs(got-want) > 0.02 || want == 0 && got > 0 {
				t.Errorf("temperature %v: number %d came in %v of all draws, expected %v", temperature, i, got, want)
			}
		}
	}
	nan, below := float32(math.NaN()), float32(math.Inf(-1))
	for _, none := range [][]float32{{1, nan, 2}, {below, below}, {1, -below}} {
		for _, temperature := range []float64{0, 1} {
			if got := Draw(none, temperature, evenweave.NewGenerator(1)); got != -1 {
				t.Errorf("of %v at temperature %v it draws %d", none, temperature, got)
			}
		}
	}
}
