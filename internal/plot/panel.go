package plot

import (
	"image/color"
	"math"
	"strconv"

	"evenweave/internal/progress"
)

const (
	width, height                     = 990, 440 // of a panel with its margins, in pixels
	leftOf, rightOf, aboveOf, belowOf = 84, 28, 44, 46
	titleSize, letterSize             = 16, 13
	maxMarks                          = 60 // of epochs
)

var ( // never written to
	trainColor = color.NRGBA{0x1f, 0x77, 0xb4, 0xff}
	lightColor = color.NRGBA{0x1f, 0x77, 0xb4, 0x48}
	testColor  = color.NRGBA{0xd6, 0x5f, 0x0e, 0xff}
	gridColor  = color.NRGBA{0, 0, 0, 0x1c}
	epochColor = color.NRGBA{0, 0, 0, 0x60}
)

// panel is one curve in its place: values from (0, low) to (last, high) fill the frame below top.
type panel struct {
	canvas
	top, last, low, high float64
}

// at is the place of a value.
func (p panel) at(v point) point {
	return point{leftOf + v.x/p.last*(width-leftOf-rightOf),
		p.top + aboveOf + (p.high-v.y)/(p.high-p.low)*(height-aboveOf-belowOf)}
}

// draw draws a curve with its axes.
func (c course) draw(on canvas, top float64, label string) {
	p := panel{canvas: on, top: top}
	p.last, p.low, p.high = c.bounds()
	p.axes(c.title(), label)
	p.plot(thin(c.train), stroke{lightColor, 1, false})
	p.plot(thin(smooth(c.train)), stroke{trainColor, 2.5, false})
	p.plot(c.test, stroke{testColor, 2.5, false})
	for _, v := range c.test {
		if v.y >= p.low && v.y <= p.high {
			p.dot(p.at(v), 4, testColor)
		}
	}
}

func (c course) title() string {
	if progress.IsShare(c.name) {
		return c.name + " (%)"
	}
	return c.name
}

// axes draws the grid, the numbers beside it, and where epochs end, while there is room for it.
func (p panel) axes(title, label string) {
	p.text(point{leftOf, p.top + aboveOf - 10}, start, letterSize, title)
	p.text(point{(leftOf + width - rightOf) / 2, p.top + height - 8}, middle, letterSize, label)
	for _, x := range ticks(0, p.last) {
		at := p.at(point{x, p.low})
		p.line([]point{at, p.at(point{x, p.high})}, stroke{gridColor, 1, false})
		p.text(point{at.x, at.y + 18}, middle, letterSize, number(x))
	}
	for _, y := range ticks(p.low, p.high) {
		at := p.at(point{0, y})
		p.line([]point{at, p.at(point{p.last, y})}, stroke{gridColor, 1, false})
		p.text(point{at.x - 8, at.y + 5}, end, letterSize, number(y))
	}
	for e := 1.0; label == "epoch" && e <= p.last && p.last <= maxMarks; e++ {
		p.line([]point{p.at(point{e, p.low}), p.at(point{e, p.high})}, stroke{epochColor, 1, true})
	}
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// plot draws values as a line, of which it leaves out what is above or below the frame.
func (p panel) plot(values []point, s stroke) {
	var part []point
	flush := func() {
		if len(part) > 1 {
			p.line(part, s)
		}
		part = nil
	}
	for i := range len(values) - 1 {
		a, b, seen := p.clip(values[i], values[i+1])
		if !seen {
			flush()
			continue
		}
		if len(part) == 0 || part[len(part)-1] != p.at(a) {
			flush()
			part = append(part, p.at(a))
		}
		part = append(part, p.at(b))
	}
	flush()
}

// clip is the part of the straight line from a to b that is between low and high.
func (p panel) clip(a, b point) (from, to point, seen bool) {
	if max(a.y, b.y) < p.low || min(a.y, b.y) > p.high {
		return a, b, false
	}
	within := func(v, other point) point {
		y := min(max(v.y, p.low), p.high)
		if y != v.y {
			v = point{v.x + (other.x-v.x)*((y-v.y)/(other.y-v.y)), y}
		}
		return v
	}
	return within(a, b), within(b, a), true
}

// bounds are the last place on the horizontal axis and the vertical range. Lines of the first steps may leave the
// picture: otherwise they would squeeze all others.
func (c course) bounds() (last, low, high float64) {
	all := extent(c.train, c.test)
	focus := extent(c.train[len(c.train)/20:], c.test)
	last, low, high = all.last, all.low, all.high
	if len(c.train) >= 100 && focus.low < focus.high {
		margin := 0.1 * (focus.high - focus.low)
		low, high = max(low, focus.low-margin), min(high, focus.high+margin)
	}
	if c.name == "loss" && focus.low >= 0 {
		low = 0
	}
	if progress.IsShare(c.name) {
		high = min(100, high)
	}
	if last <= 0 {
		last = 1
	}
	if low >= high {
		margin := max(1, 0.1*math.Abs(low))
		low, high = min(low, high)-margin, max(low, high)+margin
	}
	return last, low, high
}

type box struct{ last, low, high float64 }

// extent is the box of all values; (0, 0, 0) if there is none.
func extent(lines ...[]point) box {
	b, some := box{0, math.Inf(1), math.Inf(-1)}, false
	for _, points := range lines {
		for _, v := range points {
			b, some = box{max(b.last, v.x), min(b.low, v.y), max(b.high, v.y)}, true
		}
	}
	if !some {
		return box{}
	}
	return b
}

// legend explains the lines, at the upper right corner.
func legend(on canvas, tests bool) {
	x := float64(width - rightOf - 170)
	for i, entry := range []struct {
		name string
		stroke
	}{
		{"training, single steps", stroke{lightColor, 1, false}}, {"training, moving mean",
			stroke{trainColor, 2.5, false}},
		{"test set", stroke{testColor, 2.5, false}},
	} {
		if i == 2 && !tests {
			return
		}
		y := float64(aboveOf + 16 + 18*i)
		on.line([]point{{x, y}, {x + 26, y}}, entry.stroke)
		on.text(point{x + 34, y + 5}, start, letterSize, entry.name)
	}
}

// ticks are at most nine round values in a range.
func ticks(low, high float64) (round []float64) {
	step := 1e-6
	for i := 0; (high-low)/step > 8; i++ {
		step *= []float64{2, 2.5, 2}[i%3] // 1, 2, 5, 10, ...
	}
	first := math.Ceil(low/step - 1e-9)
	for i := range 9 {
		if v := (first + float64(i)) * step; v <= high+step*1e-9 {
			round = append(round, v)
		}
	}
	return round
}
