// Package plot draws the learning curve of a run as a picture. It draws the few shapes of a chart itself: a library of
// plots is seven modules and twelve fonts that every user's program would link.
package plot

import (
	"cmp"
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
	maxPoints = 1 << 17 // most points kept of a line; of longer jobs, means of groups of steps
	rawPoints = 2000    // most points drawn, likewise
	smoothing = 50      // a smoothed point is the mean of 1/50 of the steps around it
)

// ErrNoCurve is the error of Curve without any step or evaluation.
var ErrNoCurve = errors.New("no step and no evaluation to draw")

// Curve collects the learning curve of a run, in memory that does not grow with it.
type Curve struct {
	all       []line // the loss, then metrics and figures in the order in which they come
	last      int    // the newest step
	perEpoch  int    // steps of an epoch; 0: not known
	evaluated bool
}

// Add takes the next record of metrics.jsonl. Steps that it has already are skipped, and other kinds ignored.
func (c *Curve) Add(r progress.Record) {
	switch e := r.Event.(type) {
	case progress.Step:
		c.step(e)
	case progress.Evaluation:
		c.evaluated = true
		for _, f := range e.Figures {
			if of := c.of(f.Name); of != nil {
				of.test.add(point{float64(e.Step), f.Value * scale(f.Name)})
			}
		}
	}
}

func (c *Curve) step(s progress.Step) {
	if s.Step <= c.last {
		return
	}
	c.last = s.Step
	// Step s of epoch e > 1 bounds the steps of an epoch by (s-1)/(e-1), and an epoch's first step meets the bound.
	if s.Epoch > 1 && s.Step > 1 {
		if most := (s.Step - 1) / (s.Epoch - 1); c.perEpoch == 0 || most < c.perEpoch {
			c.perEpoch = most
		}
	}
	if s.Skipped != "" {
		return
	}
	at := float64(s.Step)
	c.of("loss").train.add(point{at, s.Loss})
	for _, m := range s.Metrics {
		if of := c.of(m.Name); of != nil {
			of.train.add(point{at, m.Value * scale(m.Name)})
		}
	}
}

// of finds a line by its name, or begins it; nil if there are too many.
func (c *Curve) of(name string) *line {
	if len(c.all) == 0 {
		c.all = []line{{name: "loss"}}
	}
	i := slices.IndexFunc(c.all, func(l line) bool { return l.name == name })
	if i < 0 {
		if len(c.all) > maxPanels { // one more than are drawn: the loss may have no value
			return nil
		}
		i, c.all = len(c.all), append(c.all, line{name: name})
	}
	return &c.all[i]
}

// Draw draws the curve as a file at path, SVG if its name ends in .svg and else PNG, over epochs, each marked: loss,
// and below it each metric and figure by its name, of training (light for single steps, bold for their moving mean) and
// of the test set. What training shows is measured before each update and with dropout, the test set without. The file
// appears whole or not at all.
func (c *Curve) Draw(path string) error {
	if c.last == 0 && !c.evaluated {
		return fmt.Errorf("plot %s: %w", path, ErrNoCurve)
	}
	all, label := c.courses()
	on, err := newCanvas(path, len(all)*height)
	if err == nil {
		on.text(point{width / 2, 26}, middle, titleSize, "Learning curve")
		for i, one := range all {
			one.draw(on, float64(i*height), label)
		}
		legend(on, c.evaluated)
		err = regular.ReplaceBy(path, on.writeTo)
	}
	if err != nil {
		return fmt.Errorf("plot %s: %w", path, err)
	}
	return nil
}

// courses are the first maxPanels, over epochs if the steps show how many an epoch has, otherwise over steps.
func (c *Curve) courses() (all []course, label string) {
	label, unit := "step", 1.0
	if c.perEpoch > 0 {
		label, unit = "epoch", float64(c.perEpoch)
	}
	c.of("loss")
	for _, l := range c.all {
		all = append(all, course{l.name, l.train.over(unit), ordered(l.test.over(unit))})
	}
	if len(all[0].train)+len(all[0].test) == 0 && len(all) > 1 {
		all = all[1:]
	}
	return all[:min(len(all), maxPanels)], label
}

// newCanvas is a canvas of the file's format.
func newCanvas(path string, height int) (canvas, error) {
	if strings.EqualFold(filepath.Ext(path), ".svg") {
		return newSVG(width, height), nil
	}
	return newRaster(width, height)
}

// line collects one number over the steps, in training and on the test set.
type line struct {
	name        string
	train, test series
}

// course is what is drawn of it.
type course struct {
	name        string
	train, test []point
}

// series are the points of a line: of more than maxPoints, means of groups of equally many.
type series struct {
	points []point
	group  int   // points of a group, less 1
	open   point // sum over the group that is not full, divided by its size
	n      int   // points in that
}

// add takes a point if its value is a number of which differences can be drawn.
func (s *series) add(p point) {
	if !(math.Abs(p.y) < 1e307) {
		return
	}
	size := float64(s.group + 1)
	s.open = point{s.open.x + p.x/size, s.open.y + p.y/size}
	if s.n++; s.n <= s.group {
		return
	}
	s.points, s.open, s.n = append(s.points, s.open), point{}, 0
	if len(s.points) == maxPoints {
		for i := range maxPoints / 2 {
			a, b := s.points[2*i], s.points[2*i+1]
			s.points[i] = point{a.x/2 + b.x/2, a.y/2 + b.y/2}
		}
		s.points, s.group = s.points[:maxPoints/2], 2*s.group+1
	}
}

// over returns the points, with so many steps as the unit of the horizontal axis.
func (s *series) over(unit float64) []point {
	all := slices.Clone(s.points)
	if s.n > 0 {
		share := float64(s.group+1) / float64(s.n)
		all = append(all, point{s.open.x * share, s.open.y * share})
	}
	for i := range all {
		all[i].x /= unit
	}
	return all
}

// ordered returns the points in order, each once: a missed evaluation comes later than those after it.
func ordered(points []point) []point {
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	return slices.CompactFunc(points, func(a, b point) bool { return a.x == b.x })
}

// scale makes percentages of shares.
func scale(name string) float64 {
	if progress.IsShare(name) {
		return 100
	}
	return 1
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
