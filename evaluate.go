package evenweave

import "context"

// Evaluator may be implemented by a Model. Evaluate measures the present state on all samples of data, each exactly
// once, without changing the state. The result must not depend on how many workers trained, nor on the machine beyond
// its class of numerics. It heeds ctx.
//
// The first figure is the one that people are shown, and by which the best epoch on held-out samples is chosen.
type Evaluator interface {
	Evaluate(ctx context.Context, data Data) ([]Figure, error)
}

// Figure is one named result of an evaluation.
type Figure struct {
	// Name is short: "accuracy", "loss", "perplexity"; at most 40 printable characters, and no two figures have the
	// same. It is shown as test_NAME. Of at most 64 figures, those that are no finite number are left out.
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	// Better says in which direction the figure improves.
	Better Direction `json:"better"`
}

// Direction says whether more or less of something is better.
type Direction int8

// Directions of a Figure.
const (
	Lower  Direction = -1
	Higher Direction = 1
)
