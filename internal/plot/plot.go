// Package plot draws the learning curve of a run as a picture. It is the only package that links a library of plots,
// and nothing that a cluster runs needs it.
package plot

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"evenweave/internal/progress"
	"evenweave/internal/regular"
)

const (
	plotWidth   = 9 * vg.Inch
	panelHeight = 4 * vg.Inch
	plotDPI     = 110
	maxPanels   = 6
	rawPoints   = 2000 // most points drawn; of longer jobs, means of groups of steps
	smoothing   = 50   // a smoothed point is the mean of 1/50 of the steps around it
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
	var panels [][]*plot.Plot
	for _, c := range curves(steps, evaluations, x) {
		panels = append(panels, []*plot.Plot{c.panel(label)})
	}
	panels[0][0].Title.Text = "Learning curve"
	for _, p := range panels[1:] {
		p[0].Legend = plot.NewLegend() // one legend is enough
	}
	picture := newPicture(path, vg.Length(len(panels))*panelHeight)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadX: vg.Inch / 4, PadY: vg.Inch / 5,
		PadTop: vg.Inch / 6, PadBottom: vg.Inch / 6, PadLeft: vg.Inch / 6, PadRight: vg.Inch / 4}
	for i, canvases := range plot.Align(panels, tiles, draw.New(picture)) {
		panels[i][0].Draw(canvases[0])
	}
	err := regular.ReplaceBy(path, func(w io.Writer) error {
		_, err := picture.WriteTo(w)
		return err
	})
	if err != nil {
		return fmt.Errorf("plot %s: %w", path, err)
	}
	return nil
}

// newPicture is a canvas of the file's format.
func newPicture(path string, height vg.Length) vg.CanvasWriterTo {
	if strings.EqualFold(filepath.Ext(path), ".svg") {
		return vgsvg.New(plotWidth, height)
	}
	return vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(plotWidth, height), vgimg.UseDPI(plotDPI))}
}

// course is one number over the steps, in training and on the test set.
type course struct {
	name        string
	train, test plotter.XYs
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
		all[0].train = append(all[0].train, plotter.XY{X: x(s.Step), Y: s.Loss})
		for _, m := range s.Metrics {
			c := of(m.Name)
			c.train = append(c.train, plotter.XY{X: x(s.Step), Y: m.Value * scale(m.Name)})
		}
	}
	for _, e := range evaluations {
		for _, f := range e.Figures {
			c := of(f.Name)
			c.test = append(c.test, plotter.XY{X: x(e.Step), Y: f.Value * scale(f.Name)})
		}
	}
	if len(all[0].train)+len(all[0].test) == 0 && len(all) > 1 {
		all = all[1:]
	}
	return all[:min(len(all), maxPanels)]
}

// scale makes percentages of shares.
func scale(name string) float64 {
	if progress.IsShare(name) {
		return 100
	}
	return 1
}

// focus sets the vertical range. Lines of the first steps may leave the picture: otherwise they would squeeze all
// others.
func (c course) focus(p *plot.Plot) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, points := range []plotter.XYs{c.train[len(c.train)/20:], c.test} {
		for _, point := range points {
			low, high = min(low, point.Y), max(high, point.Y)
		}
	}
	if c.name == "loss" && low >= 0 {
		p.Y.Min = 0
	}
	if progress.IsShare(c.name) {
		p.Y.Max = min(100, p.Y.Max)
	}
	if len(c.train) < 100 || low >= high {
		return
	}
	p.Y.Max = min(p.Y.Max, high+0.1*(high-low))
	p.Y.Min = max(p.Y.Min, low-0.1*(high-low))
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
	epochColor = color.NRGBA{0, 0, 0, 0x60}
)

// panel is one part of the picture. Colors above are never written to.
func (c course) panel(label string) *plot.Plot {
	p := plot.New()
	p.X.Label.Text, p.Y.Label.Text = label, c.name
	if progress.IsShare(c.name) {
		p.Y.Label.Text += " (%)"
	}
	for _, style := range []*font.Font{&p.Title.TextStyle.Font, &p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		style.Variant = "Sans"
		style.Size = 12
	}
	p.Title.TextStyle.Font.Size = 15
	p.X.Tick.Marker, p.Y.Tick.Marker = plot.TickerFunc(ticks), plot.TickerFunc(ticks)
	p.Legend.Padding, p.Legend.Top = 3, true
	p.Legend.XOffs, p.Legend.YOffs = -8, 8
	grid := plotter.NewGrid()
	grid.Horizontal.Color, grid.Vertical.Color = gridColor, gridColor
	p.Add(grid)

	line := func(name string, points plotter.XYs, c color.Color, width vg.Length) {
		if len(points) == 0 {
			return
		}
		l := &plotter.Line{XYs: points, LineStyle: draw.LineStyle{Color: c, Width: width}}
		p.Add(l)
		p.Legend.Add(name, l)
	}
	line("training, single steps", thin(c.train), lightColor, 0.8)
	line("training, moving mean", thin(smooth(c.train)), trainColor, 2)
	if len(c.test) > 0 {
		l := &plotter.Line{XYs: c.test, LineStyle: draw.LineStyle{Color: testColor, Width: 2}}
		dots := &plotter.Scatter{XYs: c.test, GlyphStyle: draw.GlyphStyle{Color: testColor, Radius: 3.5,
			Shape: draw.CircleGlyph{}}}
		p.Add(l, dots)
		p.Legend.Add("test set", l, dots)
	}
	p.X.Min = 0
	c.focus(p)
	if label == "epoch" {
		p.Add(epochs{})
	}
	return p
}

// epochs marks where epochs end, while there is room for it.
type epochs struct{}

const maxMarks = 60

// Plot implements plot.Plotter.
func (epochs) Plot(c draw.Canvas, p *plot.Plot) {
	if p.X.Max > maxMarks {
		return
	}
	x, _ := p.Transforms(&c)
	style := draw.LineStyle{Color: epochColor, Width: 0.7, Dashes: []vg.Length{3, 3}}
	for e := 1.0; e <= p.X.Max; e++ {
		c.StrokeLine2(style, x(e), c.Min.Y, x(e), c.Max.Y)
	}
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
