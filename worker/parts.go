package worker

import (
	"sync"
	"time"
)

// Parts say where the time of a step went. Those of the lanes are means over them.
type Parts struct {
	Load, Gradients, Quantise time.Duration // of the lanes
	Fingerprint               time.Duration // with the ledger
	Reduce, Wait              time.Duration // the sum; the wait in it for a slower rank
	Mean, Update              time.Duration // the model's update alone
	Step                      time.Duration // all of it
}

// meanParts is the mean over lanes.
func meanParts(lanes []*lane) (p Parts) {
	n := time.Duration(max(1, len(lanes)))
	for _, l := range lanes {
		p.Load += l.took.Load / n
		p.Gradients += l.took.Gradients / n
		p.Quantise += l.took.Quantise / n
	}
	return p
}

// side runs f(0) to f(n-1), one on each lane.
func (g *generation) side(f func(i, n int)) { sideBySide(len(g.lanes), f) }

func sideBySide(n int, f func(i, n int)) {
	var others sync.WaitGroup
	for i := 1; i < n; i++ {
		others.Go(func() { f(i, n) })
	}
	f(0, n)
	others.Wait()
}

// meanOf forms the mean of a summed gradient, a part on each lane.
func (g *generation) meanOf(gradient []int64, weight int64) {
	blocks := g.replica.blocks
	g.side(func(i, n int) {
		lo, hi := blocks.Count()*i/n, blocks.Count()*(i+1)/n
		blocks.MeanOf(lo, hi, g.flatMean, gradient, g.exponents, weight)
	})
}
