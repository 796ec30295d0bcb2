// Package plot draws the learning curve of a run as a picture. It draws the few shapes of a chart itself: a library of
// plots is seven modules and twelve fonts that every user's program would link.
package plot

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"

	"evenweave/internal/progress"
	"evenweave/internal/regular"
)

const (
	maxPanels = 6
	rawPoints = 2000 // most points drawn; of longer jobs, means of groups of steps
	smoothing = 50   // a smoothed point is the mean of 1/50 of the steps around it
)

// ErrNoCurve is the error of Curve without any step or evaluation.
var ErrNoCurve = errors.New("no step and no evaluation to draw")

// Curve draws the learning curve that records hold as a file at path, SVG if its name ends in .svg and else PNG, over
// epochs, each marked: loss, and below it each metric
// and figure by its name, of training (light for single steps, bold for their moving mean) and of the test set. What
// training shows is measured before each update and with dropout, the test set without. The file appears whole or not
// at all. Records may be in any order; other kinds are ignored.
func Curve(path string, records []progress.Record) error {
	steps, evaluations := ordered(records)
	if len(steps) == 0 && len(evaluations) == 0 {
		return fmt.Errorf("plot %s: %w", path, ErrNoCurve)
	}
	x, label := timeline(steps)
	all := curves(steps, evaluations, x)
	on, err := newCanvas(path, len(all)*height)
	if err == nil {
		on.text(point{width / 2, 26}, middle, titleSize, "Learning curve")
		for i, c := range all {
			c.draw(on, float64(i*height), label)
		}
		legend(on, len(evaluations) > 0)
		err = regular.ReplaceBy(path, on.writeTo)
	}
	if err != nil {
		return fmt.Errorf("plot %s: %w", path, err)
	}
	return nil
}

// newCanvas is a canvas of the file's format.
func newCanvas(path string, height int) (canvas, error) {
	if strings.EqualFold(filepath.Ext(path), ".svg") {
		return newSVG(width, height), nil
	}
	return newRaster(width, height)
}

// course is one number over the steps, in training and on the test set.
type course struct {
	name        string
	train, test []point
}

// curves are the loss, then the metrics and the figures in the order in which they come: the first maxPanels.
func curves(steps []progress.Step, evaluations []progress.Evaluation, x func(int) float64) []course {
	all := []course{{name: "loss"}}
	of := func(name string) *course {
		i := slices.IndexFunc(all, func(c course) bool { return c.name == name })
		if i < 0 {
			i, all = len(all), append(all, course{name: name})
		}
		return &all[i]
	}
	for _, s := range steps {
		if s.Skipped != "" {
			continue
		}
		all[0].train = with(all[0].train, x(s.Step), s.Loss)
		for _, m := range s.Metrics {
			c := of(m.Name)
			c.train = with(c.train, x(s.Step), m.Value*scale(m.Name))
		}
	}
	for _, e := range evaluations {
		for _, f := range e.Figures {
			c := of(f.Name)
			c.test = with(c.test, x(e.Step), f.Value*scale(f.Name))
		}
	}
	if len(all[0].train)+len(all[0].test) == 0 && len(all) > 1 {
		all = all[1:]
	}
	return all[:min(len(all), maxPanels)]
}

// with adds a value, if it is a number of which differences can be drawn.
func with(points []point, x, y float64) []point {
	if math.Abs(y) < 1e307 {
		points = append(points, point{x, y})
	}
	return points
}

// scale makes percentages of shares.
func scale(name string) float64 {
	if progress.IsShare(name) {
		return 100
	}
	return 1
}

// ordered returns the steps and evaluations to draw, in order, each once.
func ordered(records []progress.Record) (steps []progress.Step, evaluations []progress.Evaluation) {
	for _, r := range records {
		switch e := r.Event.(type) {
		case progress.Step:
			steps = append(steps, e)
		case progress.Evaluation:
			evaluations = append(evaluations, e)
		}
	}
	slices.SortStableFunc(steps, func(a, b progress.Step) int { return a.Step - b.Step })
	slices.SortStableFunc(evaluations, func(a, b progress.Evaluation) int { return a.Step - b.Step })
	return slices.CompactFunc(steps, func(a, b progress.Step) bool { return a.Step == b.Step }),
		slices.CompactFunc(evaluations, func(a, b progress.Evaluation) bool { return a.Step == b.Step })
}

// timeline maps a step to its place on the horizontal axis: in epochs if the records show how many steps an epoch has,
// otherwise in steps. Step s of epoch e > 1 bounds that number by (s-1)/(e-1), and an epoch's first step meets the
// bound.
func timeline(steps []progress.Step) (x func(step int) float64, label string) {
	perEpoch := 0
	for _, s := range steps {
		if s.Epoch > 1 && s.Step > 1 {
			if most := (s.Step - 1) / (s.Epoch - 1); perEpoch == 0 || most < perEpoch {
				perEpoch = most
			}
		}
	}
	if perEpoch > 0 {
		return func(step int) float64 { return float64(step) / float64(perEpoch) }, "epoch"
	}
	return func(step int) float64 { return float64(step) }, "step"
}

// smooth is the mean of the points around each.
func smooth(points []point) []point {
	half := len(points) / smoothing / 2
	sums := make([]float64, len(points)+1)
	for i, p := range points {
		sums[i+1] = sums[i] + p.y
	}
	out := make([]point, len(points))
	for i, p := range points {
		from, to := max(0, i-half), min(len(points), i+half+1)
		out[i] = point{p.x, (sums[to] - sums[from]) / float64(to-from)}
	}
	return out
}

// thin is at most rawPoints points, means of groups of neighbours.
func thin(points []point) []point {
	group := (len(points) + rawPoints - 1) / rawPoints
	if group <= 1 {
		return points
	}
	var out []point
	for g := range slices.Chunk(points, group) {
		var mean point
		for _, p := range g {
			mean.x += p.x / float64(len(g))
			mean.y += p.y / float64(len(g))
		}
		out = append(out, mean)
	}
	return out
}
