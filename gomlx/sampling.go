package gomlx

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"evenweave"
	"evenweave/dataset"
)

// Sampling says how Model.Continue draws tokens. It is what a command's Options may point to, or embed: its fields are
// flags then.
type Sampling struct {
	Tokens      int     `flag:"tokens" help:"how many tokens are added" min:"1"`
	Temperature float64 `flag:"temperature" help:"1: as likely as the model says, less: likely ones more often" min:"0"`
	Seed        uint64  `flag:"seed" help:"another seed draws other tokens"`
}

// Continue goes on with a sequence of tokens, and returns the whole. The model must be a language model: its one input
// is a window of int32 tokens, and for each place of the window it predicts the logits of the token that follows, from
// what comes before it alone: float32 [window vocabulary]. Each token costs a prediction of the whole window.
func (m *Model) Continue(ctx context.Context, tokens []int32, s Sampling) ([]int32, error) {
	inputs := m.config.Inputs
	if len(inputs) != 1 || inputs[0].Rank() != 1 || types()[inputs[0].DType] != evenweave.Int32 {
		return nil, fmt.Errorf("the model's inputs are %v: expected one window of int32 tokens", inputs)
	}
	if len(tokens) == 0 {
		return nil, errors.New("no token to go on with: expected at least one")
	}
	all, random := slices.Clone(tokens), evenweave.NewGenerator(s.Seed)
	window := make([]int32, inputs[0].Dimensions[0])
	for range s.Tokens {
		known := copy(window, all[max(0, len(all)-len(window)):])
		out, err := m.Predict(dataset.Of(window, len(window)))
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return nil, err
		}
		logits, err := logitsAt(out[0], known-1, len(window))
		if err == nil && (int(slices.Max(all)) >= len(logits) || slices.Min(all) < 0) {
			err = fmt.Errorf("tokens %d to %d: the model knows %d", slices.Min(all), slices.Max(all), len(logits))
		}
		if err != nil {
			return nil, err
		}
		next := Draw(logits, s.Temperature, random)
		if next < 0 {
			return nil, errors.New("the model's logits are no numbers: has its training diverged?")
		}
		all = append(all, int32(next))
	}
	return all, nil
}

// logitsAt are the logits that a language model gives at a place of its window.
func logitsAt(out dataset.Flat, place, window int) ([]float32, error) {
	if out.Type != evenweave.Float32 || len(out.Shape) != 2 || out.Shape[0] != window {
		return nil, fmt.Errorf("the model predicts %s%v: expected float32 logits for each of %d places", out.Type,
			out.Shape, window)
	}
	n := out.Shape[1]
	return dataset.Values[float32](out)[place*n:][:n], nil
}

// Draw draws one of several things at random, by what a network says of each: its logit. At temperature 1 they are as
// likely as the network says, below it likely ones come more often, at 0 the likeliest always. It returns -1 where a
// logit is NaN or all are infinite, and panics without logits.
func Draw(logits []float32, temperature float64, random *evenweave.Generator) int {
	most := slices.Max(logits) // NaN if one is
	if math.IsInf(float64(most), 0) {
		return -1
	}
	if temperature <= 0 {
		return slices.Index(logits, most)
	}
	weights, total := make([]float64, len(logits)), 0.0
	for i, l := range logits {
		weights[i] = math.Exp(float64(l-most) / temperature)
		total += weights[i]
	}
	at := total * float64(random.Below(1<<53)) / (1 << 53)
	for i, w := range weights {
		if at -= w; at < 0 {
			return i
		}
	}
	return slices.Index(logits, most) // the weights' sum was rounded
}
