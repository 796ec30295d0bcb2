package evaluate

import (
	"fmt"
	"image"
	"image/color"

	"golang.org/x/image/draw"
	"golang.org/x/image/font"
	"golang.org/x/image/font/basicfont"
	"golang.org/x/image/math/fixed"
)

// The reliability diagram: ChartSide pixels a side, in which the square with the bars has room for axes and titles.
const (
	ChartSide  = 256
	chartLeft  = 36
	chartTop   = 24
	chartInner = 200
)

// Reliability draws how often the network was right when it was that sure: a bar for each bin, as high as its share of
// right answers, with a mark at its mean confidence. Where bars end on the diagonal, confidence can be trusted.
func Reliability(bins []Bin) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, ChartSide, ChartSide))
	draw.Draw(m, m.Rect, image.White, image.Point{}, draw.Src)
	ink, grid := color.RGBA{60, 60, 60, 255}, color.RGBA{215, 215, 215, 255}
	right, sure := color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255} // blue and vermilion: any eye sees two
	fill := func(x0, y0, x1, y1 int, c color.RGBA) {
		draw.Draw(m, image.Rect(x0, y0, x1, y1), image.NewUniform(c), image.Point{}, draw.Over)
	}
	x := func(share float64) int { return chartLeft + int(share*chartInner+0.5) }
	y := func(share float64) int { return chartTop + chartInner - int(share*chartInner+0.5) }
	write := func(left, base int, c color.RGBA, text string) {
		d := font.Drawer{Dst: m, Src: image.NewUniform(c), Face: basicfont.Face7x13, Dot: fixed.P(left, base)}
		d.DrawString(text)
	}
	for _, tick := range []float64{0, 0.5, 1} {
		fill(x(0), y(tick), x(1), y(tick)+1, grid)
		fill(x(tick), y(1), x(tick)+1, y(0), grid)
		label := fmt.Sprintf("%.0f", 100*tick)
		write(x(0)-4-7*len(label), y(tick)+5, ink, label)
		write(x(tick)-7*len(label)/2, y(0)+13, ink, label)
	}
	for _, b := range bins {
		fill(x(b.From)+1, y(b.Accuracy), x(b.To), y(0), right)
	}
	for i := range chartInner { // the diagonal
		if i/4%2 == 0 {
			fill(x(0)+i, y(0)-i-1, x(0)+i+1, y(0)-i, ink)
		}
	}
	for _, b := range bins {
		fill(x(b.From)+1, y(b.Confidence)-1, x(b.To), y(b.Confidence)+2, sure)
	}
	fill(x(0), y(1), x(0)+1, y(0)+1, ink)
	fill(x(0), y(0), x(1)+1, y(0)+1, ink)
	write(2, 13, right, "right, %")
	write(72, 13, sure, "mean confidence, %")
	write(chartLeft+(chartInner-7*13)/2, ChartSide-5, ink, "confidence, %")
	return m
}
