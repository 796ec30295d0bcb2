// Package plot draws the learning curve of a run as a picture. It is the only package that links a library of plots,
// and nothing that a cluster runs needs it.
package plot

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"evenweave/internal/progress"
)

const (
	plotWidth  = 9 * vg.Inch
	plotHeight = 8 * vg.Inch
	plotDPI    = 110
	rawPoints  = 2000 // most points drawn; of longer jobs, means of groups of steps
	smoothing  = 50   // a smoothed point is the mean of 1/50 of the steps around it
)

// ErrNoCurve is the error of Curve without any step or evaluation.
var ErrNoCurve = errors.New("no step and no evaluation to draw")

// Curve draws the learning curve that records hold as a PNG file at path: loss above, accuracy below, of training
// (light for single steps, bold for their moving mean) and of the test set, over epochs. Training accuracy is measured
// before each update and with dropout, test accuracy without. The file appears whole or not at all. Records may be in
// any order; other kinds are ignored.
func Curve(path string, records []progress.Record) error {
	steps, evaluations := ordered(records)
	if len(steps) == 0 && len(evaluations) == 0 {
		return fmt.Errorf("plot %s: %w", path, ErrNoCurve)
	}
	x, label := timeline(steps)
	loss := panel("Learning curve", "loss", label, steps, evaluations, x,
		func(s progress.Step) float64 { return s.Loss }, func(e progress.Evaluation) float64 { return e.TestLoss })
	accuracy := panel("", "accuracy (%)", label, steps, evaluations, x,
		func(s progress.Step) float64 { return 100 * s.Accuracy },
		func(e progress.Evaluation) float64 { return 100 * e.TestAccuracy })
	accuracy.Legend = plot.NewLegend() // one legend is enough
	focus(loss, accuracy, steps, evaluations)

	image := vgimg.NewWith(vgimg.UseWH(plotWidth, plotHeight), vgimg.UseDPI(plotDPI))
	panels := [][]*plot.Plot{{loss}, {accuracy}}
	tiles := draw.Tiles{Rows: 2, Cols: 1, PadX: vg.Inch / 4, PadY: vg.Inch / 5,
		PadTop: vg.Inch / 6, PadBottom: vg.Inch / 6, PadLeft: vg.Inch / 6, PadRight: vg.Inch / 4}
	for i, canvases := range plot.Align(panels, tiles, draw.New(image)) {
		panels[i][0].Draw(canvases[0])
	}
	if err := writePNG(path, vgimg.PngCanvas{Canvas: image}); err != nil {
		return fmt.Errorf("plot %s: %w", path, err)
	}
	return nil
}

// focus sets the vertical ranges. Lines of the first steps may leave the picture: otherwise they would squeeze all
// others.
func focus(loss, accuracy *plot.Plot, steps []progress.Step, evaluations []progress.Evaluation) {
	loss.Legend.Top = true
	loss.Y.Min = 0
	accuracy.Y.Max = min(100, accuracy.Y.Max)
	if len(steps) < 100 {
		return
	}
	highest, lowest := 0.0, 100.0
	for _, s := range steps[len(steps)/20:] {
		highest, lowest = max(highest, s.Loss), min(lowest, 100*s.Accuracy)
	}
	for _, e := range evaluations {
		highest, lowest = max(highest, e.TestLoss), min(lowest, 100*e.TestAccuracy)
	}
	loss.Y.Max = min(loss.Y.Max, 1.1*highest)
	accuracy.Y.Min = max(accuracy.Y.Min, lowest-2)
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

var (
	trainColor = color.NRGBA{0x1f, 0x77, 0xb4, 0xff}
	lightColor = color.NRGBA{0x1f, 0x77, 0xb4, 0x48}
	testColor  = color.NRGBA{0xd6, 0x5f, 0x0e, 0xff}
	gridColor  = color.NRGBA{0, 0, 0, 0x1c}
)

// panel is one half of the picture. Colors above are never written to.
func panel(title, y, label string, steps []progress.Step, evaluations []progress.Evaluation, x func(int) float64,
	ofStep func(progress.Step) float64, ofTest func(progress.Evaluation) float64) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, label, y
	for _, style := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		style.Variant = "Sans"
		style.Size = 12
	}
	p.Title.TextStyle.Font.Size = 15
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Legend.Padding = 3
	p.Legend.XOffs, p.Legend.YOffs = -8, 8
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = gridColor, gridColor
	p.Add(grid)

	raw := make(plotter.XYs, len(steps))
	for i, s := range steps {
		raw[i] = plotter.XY{X: x(s.Step), Y: ofStep(s)}
	}
	line := func(name string, points plotter.XYs, c color.Color, width vg.Length) {
		if len(points) == 0 {
			return
		}
		l := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: width}}
		p.Add(l)
		p.Legend.Add(name, l)
	}
	line("training, single steps", thin(raw), lightColor, 0.8)
	line("training, moving mean", thin(smooth(raw)), trainColor, 2)
	if len(evaluations) > 0 {
		points := make(plotter.XYs, len(evaluations))
		for i, e := range evaluations {
			points[i] = plotter.XY{X: x(e.Step), Y: ofTest(e)}
		}
		l := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: testColor, Width: 2}}
		dots := &plotter.Scatter{XYs: points, GlyphStyle: draw.GlyphStyle{Color: testColor, Radius: 3.5,
			Shape: draw.CircleGlyph{}}}
		p.Add(l, dots)
		p.Legend.Add("test set", l, dots)
	}
	p.X.Min = 0
	return p
}

// smooth is the mean of the points around each.
func smooth(points plotter.XYs) plotter.XYs {
	half := len(points) / smoothing / 2
	sums := make([]float64, len(points)+1)
	for i, p := range points {
		sums[i+1] = sums[i] + p.Y
	}
	out := make(plotter.XYs, len(points))
	for i, p := range points {
		from, to := max(0, i-half), min(len(points), i+half+1)
		out[i] = plotter.XY{X: p.X, Y: (sums[to] - sums[from]) / float64(to-from)}
	}
	return out
}

// thin is at most rawPoints points, means of groups of neighbours.
func thin(points plotter.XYs) plotter.XYs {
	group := (len(points) + rawPoints - 1) / rawPoints
	if group <= 1 {
		return points
	}
	var out plotter.XYs
	for g := range slices.Chunk(points, group) {
		var mean plotter.XY
		for _, p := range g {
			mean.X += p.X / float64(len(g))
			mean.Y += p.Y / float64(len(g))
		}
		out = append(out, mean)
	}
	return out
}

// ticks labels about eight round values and nothing between them.
func ticks(low, high float64) []plot.Tick {
	step := 1e-6
	for i := 0; (high-low)/step > 8; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10, ...
	}
	var out []plot.Tick
	first := math.Ceil(low/step - 1e-9)
	for i := range 9 {
		if v := (first + float64(i)) * step; v <= high+step*1e-9 {
			out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'g', 6, 64)})
		}
	}
	return out
}

// writePNG replaces the picture in one rename.
func writePNG(path string, picture vgimg.PngCanvas) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = picture.WriteTo(f)
	err = errors.Join(err, f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
