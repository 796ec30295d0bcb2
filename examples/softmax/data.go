package main

import (
	"fmt"

	"evenweave"
)

const (
	classes  = 3
	features = 2
)

// points are a data set without a file: three clouds in a plane. Point i is a pure function of first+i.
type points struct{ first, n int }

type point struct {
	at    [features]float32
	cloud int
}

// Len implements evenweave.Data.
func (p points) Len() int { return p.n }

// Digest implements evenweave.Data: it names the data, so it must change whenever a point does.
func (p points) Digest() string {
	return fmt.Sprintf("three clouds v1, points %d to %d", p.first, p.first+p.n-1)
}

// Load implements evenweave.Data. Padding is left out: it adds nothing to any sum.
func (p points) Load(b *evenweave.Batch) error {
	content, _ := b.Content.([]point)
	content = content[:0]
	for _, i := range b.Samples {
		if i != evenweave.Padding {
			content = append(content, p.point(p.first+int(i)))
		}
	}
	b.Content = content
	return nil
}

func (p points) point(i int) point {
	noise := evenweave.NewGenerator(uint64(i))
	out := point{cloud: i % classes}
	for f, centre := range [classes][features]float32{{1, 0}, {-0.5, 0.875}, {-0.5, -0.875}}[out.cloud] {
		out.at[f] = centre + (float32(noise.Below(2001))-1000)/1000
	}
	return out
}
