package cnn

// Metrics names the sums that Gradients reports beside the loss: how many samples of non-zero weight were classified
// right.
func Metrics() []string { return []string{"accuracy"} }

// Content is what a batch holds for this model: one sample after the other.
type Content struct {
	Images  []byte    // 784 bytes a sample
	Labels  []uint8   // below the number of classes
	Weights []float32 // 1, or 0 for padding
}

// Reset empties the content and keeps its memory.
func (c *Content) Reset() { c.Images, c.Labels, c.Weights = c.Images[:0], c.Labels[:0], c.Weights[:0] }

// Add appends a sample.
func (c *Content) Add(image []byte, label uint8) {
	c.Images, c.Labels, c.Weights = append(c.Images, image...), append(c.Labels, label), append(c.Weights, 1)
}

// Pad appends a place without a sample.
func (c *Content) Pad() {
	var blank [pixels]byte
	c.Images, c.Labels, c.Weights = append(c.Images, blank[:]...), append(c.Labels, 0), append(c.Weights, 0)
}

// Image returns the pixels of a sample.
func (c *Content) Image(i int) []byte { return c.Images[i*pixels : (i+1)*pixels] }
