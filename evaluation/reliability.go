package evaluation

import "image"

// reliability draws how often the network was right when it was that sure: a bar for each bin, as high as its share of
// right answers, with a mark at its mean confidence. Where bars end on the diagonal, confidence can be trusted.
func reliability(bins []Bin) image.Image {
	c := newChart([3]string{"0", "50", "100"})
	for _, b := range bins {
		c.fill(c.x(b.From)+1, c.y(b.Accuracy), c.x(b.To), c.y(0), blue)
	}
	c.diagonal()
	for _, b := range bins {
		c.fill(c.x(b.From)+1, c.y(b.Confidence)-1, c.x(b.To), c.y(b.Confidence)+2, vermilion)
	}
	c.write(2, 13, blue, "right, %")
	c.write(72, 13, vermilion, "mean confidence, %")
	c.axes("confidence, %")
	return c
}
