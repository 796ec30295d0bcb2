package example

import (
	"fmt"
	"math"

	"evenweave"
)

// Samples is what Points loads for Softmax: one element a sample.
type Samples struct {
	Points  [][features]byte
	Labels  []uint8
	Weights []float32 // 1, or 0 for padding
}

// Points is the data set: three clouds of points, sample i in cloud i mod 3. Each point is a pure function of its
// index.
type Points struct{ N int }

// Len implements evenweave.Data.
func (p Points) Len() int { return p.N }

// Digest implements evenweave.Data.
func (p Points) Digest() string { return fmt.Sprintf("%d points of three clouds", p.N) }

// Load implements evenweave.Data.
func (p Points) Load(b *evenweave.Batch) error {
	s, ok := b.Content.(*Samples)
	if !ok {
		s = &Samples{}
		b.Content = s
	}
	s.Points, s.Labels, s.Weights = s.Points[:0], s.Labels[:0], s.Weights[:0]
	for _, i := range b.Samples {
		if i == evenweave.Padding {
			s.Points, s.Labels, s.Weights = append(s.Points, [features]byte{}), append(s.Labels, 0),
				append(s.Weights, 0)
			continue
		}
		cloud := int(i) % classes
		angle := 2 * math.Pi * float64(cloud) / classes
		noise := evenweave.NewGenerator(uint64(i))
		at := func(centre float64) byte { return byte(128 + 55*centre + float64(noise.Below(80)) - 40) }
		s.Points = append(s.Points, [features]byte{at(math.Cos(angle)), at(math.Sin(angle))})
		s.Labels, s.Weights = append(s.Labels, uint8(cloud)), append(s.Weights, 1)
	}
	return nil
}
