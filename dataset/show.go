package dataset

import (
	"image"

	"evenweave"
)

// shown passes on what data can show to people (evenweave.Classed, Pictured and Located), or shows nothing. at gives
// the index by which the data know a sample; nil: the same one.
type shown struct {
	data any // evenweave.Data, or a Source
	at   func(int32) int32
}

func (s shown) index(sample int) int {
	if s.at == nil {
		return sample
	}
	return int(s.at(int32(sample)))
}

// Classes implements evenweave.Classed.
func (s shown) Classes() []string {
	if c, ok := s.data.(evenweave.Classed); ok {
		return c.Classes()
	}
	return nil
}

// Class implements evenweave.Classed.
func (s shown) Class(sample int) int {
	if c, ok := s.data.(evenweave.Classed); ok {
		return c.Class(s.index(sample))
	}
	return -1
}

// Picture implements evenweave.Pictured.
func (s shown) Picture(sample int) (image.Image, error) {
	if p, ok := s.data.(evenweave.Pictured); ok {
		return p.Picture(s.index(sample))
	}
	return nil, nil
}

// Files implements evenweave.Located.
func (s shown) Files() []string {
	if l, ok := s.data.(evenweave.Located); ok {
		return l.Files()
	}
	return nil
}

// Picture implements evenweave.Pictured. It shows samples whose one input is bytes of the shape [height width] or
// [height width channels], with one channel or three.
func (d *indexed) Picture(sample int) (image.Image, error) {
	h, w, channels := d.pictureShape()
	if channels == 0 {
		return d.shown.Picture(sample)
	}
	inputs, labels := make([][]byte, 1), make([][]byte, len(d.labels))
	size, _ := d.inputs[0].SampleBytes() // New checks them
	inputs[0] = make([]byte, size)
	for i, l := range d.labels {
		size, _ := l.SampleBytes()
		labels[i] = make([]byte, size)
	}
	if _, err := d.read(int32(sample), inputs, labels); err != nil {
		return nil, err
	}
	if channels == 1 {
		return &image.Gray{Pix: inputs[0], Stride: w, Rect: image.Rect(0, 0, w, h)}, nil
	}
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for k := range h * w {
		copy(m.Pix[4*k:], inputs[0][3*k:3*k+3])
		m.Pix[4*k+3] = 255
	}
	return m, nil
}

// pictureShape is that of a sample which can be shown as a picture; no channels: it cannot.
func (d *indexed) pictureShape() (height, width, channels int) {
	if len(d.inputs) != 1 || d.inputs[0].Type != evenweave.Uint8 {
		return 0, 0, 0
	}
	switch shape := d.inputs[0].Shape; {
	case len(shape) == 2:
		return shape[0], shape[1], 1
	case len(shape) == 3 && (shape[2] == 1 || shape[2] == 3):
		return shape[0], shape[1], shape[2]
	}
	return 0, 0, 0
}
