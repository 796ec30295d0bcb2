package cnn

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Adam's constants, as in Keras.
const (
	beta1   = 0.9
	beta2   = 0.999
	epsilon = 1e-7
)

// A Recipe is how the network is trained, beside its data and length.
type Recipe struct {
	Name         string
	LearningRate float64 // Adam's, at its highest
}

func recipes() []Recipe {
	return []Recipe{
		{Name: "tutorial", LearningRate: 1e-3},
	}
}

// RecipeNamed finds a recipe; the error lists the names there are.
func RecipeNamed(name string) (Recipe, error) {
	all := recipes()
	if i := slices.IndexFunc(all, func(r Recipe) bool { return r.Name == name }); i >= 0 {
		return all[i], nil
	}
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	return Recipe{}, fmt.Errorf("unknown recipe %q: choose one of %s", name, strings.Join(names, ", "))
}

// learningRate is that of update `step` (the first is 0), with Adam's bias
// correction folded in: m/(1-beta1^t) and v/(1-beta2^t) come to one factor.
func (r Recipe) learningRate(step int64) float32 {
	t := float64(step + 1)
	return float32(r.LearningRate * math.Sqrt(1-math.Pow(beta2, t)) / (1 - math.Pow(beta1, t)))
}

// adam is one update of [n] parameters and their moments by a mean gradient.
func adam(params, m, v, gradient, rate *Node) []*Node {
	m = Add(MulScalar(m, beta1), MulScalar(gradient, 1-beta1))
	v = Add(MulScalar(v, beta2), MulScalar(Square(gradient), 1-beta2))
	step := Div(Mul(rate, m), AddScalar(Sqrt(v), epsilon))
	return []*Node{Sub(params, step), m, v}
}

func vector(n int) shapes.Shape { return shapes.Make(dtypes.Float32, n) }
