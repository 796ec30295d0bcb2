package evaluation

import (
	"fmt"
	"image"
	"image/color"
	"math"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// A chart has chartSide pixels a side: a square from 0 to 1 on both axes, with room for labels and titles.
const (
	chartSide  = 256
	chartLeft  = 46
	chartTop   = 24
	chartInner = 200
)

var (
	ink       = color.RGBA{60, 60, 60, 255}
	grid      = color.RGBA{215, 215, 215, 255}
	blue      = color.RGBA{0, 114, 178, 255} // blue and vermilion: any eye sees two
	vermilion = color.RGBA{213, 94, 0, 255}
)

type chart struct{ *image.RGBA }

// newChart has a grid with these labels at 0, 0.5 and 1 of both axes.
func newChart(labels [3]string) chart {
	c := chart{image.NewRGBA(image.Rect(0, 0, chartSide, chartSide))}
	draw.Draw(c, c.Rect, image.White, image.Point{}, draw.Src)
	for i, label := range labels {
		tick := float64(i) / 2
		c.fill(c.x(0), c.y(tick), c.x(1), c.y(tick)+1, grid)
		c.fill(c.x(tick), c.y(1), c.x(tick)+1, c.y(0), grid)
		c.write(max(0, c.x(0)-4-7*len(label)), c.y(tick)+5, ink, label)
		c.write(min(c.x(tick)-7*len(label)/2, chartSide-7*len(label)), c.y(0)+15, ink, label)
	}
	return c
}

func (c chart) x(share float64) int { return chartLeft + int(share*chartInner+0.5) }
func (c chart) y(share float64) int { return chartTop + chartInner - int(share*chartInner+0.5) }

func (c chart) fill(x0, y0, x1, y1 int, with color.RGBA) {
	draw.Draw(c, image.Rect(x0, y0, x1, y1), image.NewUniform(with), image.Point{}, draw.Over)
}

func (c chart) write(left, base int, with color.RGBA, text string) {
	d := font.Drawer{Dst: c, Src: image.NewUniform(with), Face: basicfont.Face7x13, Dot: fixed.P(left, base)}
	d.DrawString(text)
}

func (c chart) diagonal() {
	for i := range chartInner {
		if i/4%2 == 0 {
			c.fill(c.x(0)+i, c.y(0)-i-1, c.x(0)+i+1, c.y(0)-i, ink)
		}
	}
}

// span is where an axis begins, and half its length: round numbers, and all from low to high is on it.
func span(low, high float64) (from, half float64) {
	unit := math.Pow(10, math.Floor(math.Log10((high-low)/2)))
	for _, factor := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 15, 20} {
		half = factor * unit
		if from = math.Floor(low/half) * half; from+2*half >= high {
			return from, half
		}
	}
	return low, (high - low) / 2
}

// tick writes a number in few letters.
func tick(x float64) string {
	unit := ""
	for _, next := range []string{"k", "M", "G"} {
		if math.Abs(x) < 1e4 {
			break
		}
		x, unit = x/1000, next
	}
	return fmt.Sprintf("%.5g%s", x, unit)
}

// axes are drawn last, with what stands below.
func (c chart) axes(below string) {
	c.fill(c.x(0), c.y(1), c.x(0)+1, c.y(0)+1, ink)
	c.fill(c.x(0), c.y(0), c.x(1)+1, c.y(0)+1, ink)
	c.write(chartLeft+(chartInner-7*len(below))/2, chartSide-5, ink, below)
}
