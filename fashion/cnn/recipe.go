package cnn

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A Recipe is how the network is trained, besides its data and length.
type Recipe struct {
	Name         string
	Muon         bool    // kernels take Muon's steps, biases Adam's; otherwise all take Adam's
	LearningRate float64 // the highest, of both
	WarmUp       float64 // share of the steps in which the rate rises to it
	Decay        bool    // whether the rate then falls in a straight line to 0 at the last step
	WeightDecay  float64 // share of each weight that a step takes off, times the rate
	Dropout      float64 // share of the features that a step of training zeroes
	Smoothing    float64 // share of each target that is spread over all classes
	Flip         bool    // half of the images are mirrored
	Shift        int     // images move by up to this many pixels each way
	Erase        int     // a rectangle with sides up to this is blanked in half of the images
}

func recipes() []Recipe {
	return []Recipe{
		{Name: "tutorial", LearningRate: 1e-3, Dropout: 0.25},
		{Name: "fast", Muon: true, LearningRate: 0.032, WarmUp: 0.1, Decay: true, Dropout: 0.1},
		{Name: "augment", Muon: true, LearningRate: 0.016, WarmUp: 0.1, Decay: true, WeightDecay: 0.01,
			Dropout: 0.5, Shift: 1},
	}
}

// RecipeNamed returns a recipe; its error lists all names.
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

// rate is the learning rate of update `step` (the first is 0) of `total`.
func (r Recipe) rate(step, total int64) float64 {
	done := (float64(step) + 0.5) / float64(max(total, 1))
	switch {
	case done < r.WarmUp:
		return r.LearningRate * done / r.WarmUp
	case r.Decay:
		return r.LearningRate * max(0, 1-done) / (1 - r.WarmUp)
	}
	return r.LearningRate
}

// LearningRate implements evenweave.Scheduler.
func (m *Model) LearningRate(step int64) float64 { return m.recipe.rate(step, m.options.TotalSteps) }

// factors are what an update multiplies by: Adam's quotient of moments by `moment`, Muon's direction by `rate`, the
// weights by `keep`. Adam's bias corrections, m/(1-beta1^t) and v/(1-beta2^t), are folded into the first.
func (r Recipe) factors(step, total int64) (moment, rate, keep float32) {
	t, now := float64(step+1), r.rate(step, total)
	correction := math.Sqrt(1-math.Pow(beta2, t)) / (1 - math.Pow(beta1, t))
	return float32(now * correction), float32(now), float32(1 - now*r.WeightDecay)
}
