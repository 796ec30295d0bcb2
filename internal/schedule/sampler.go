package schedule

import (
	"fmt"
	"sync"

	"evenweave"
)

// Sampler computes which samples a micro-batch holds. It is safe for concurrent use.
type Sampler struct {
	plan Plan

	mu     sync.Mutex
	orders [2]epochOrder // by epoch parity; guarded by mu
}

type epochOrder struct {
	epoch   int64
	samples []int32 // never written again once made
}

// NewSampler returns the sampler of a valid plan.
func NewSampler(p Plan) *Sampler { return &Sampler{plan: p} }

// MicroBatch writes to dst, of length Plan.MicroBatch, the dataset indices of micro-batch v of update index step, and
// Padding beyond the epoch's end. It panics if step, v or the length is impossible: any result would train on the wrong
// samples.
func (s *Sampler) MicroBatch(step int64, v int, dst []int32) {
	p := s.plan
	if step < 0 || v < 0 || v >= p.MicroBatches() || len(dst) != p.MicroBatch {
		panic(fmt.Sprintf("schedule: no micro-batch %d of %d in step %d for %d samples of %d",
			v, p.MicroBatches(), step, len(dst), p.MicroBatch))
	}
	epoch, within := p.Position(step)
	first := min(within*int64(p.GlobalBatch)+int64(v)*int64(p.MicroBatch), int64(p.Samples))
	n := copy(dst, s.order(epoch)[first:])
	for i := n; i < len(dst); i++ {
		dst[i] = evenweave.Padding
	}
}

func (s *Sampler) order(epoch int64) []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.orders[epoch%2]
	if o.samples == nil || o.epoch != epoch {
		*o = epochOrder{epoch, Order(s.plan.Seed, epoch, s.plan.Samples)}
	}
	return o.samples
}

// Order returns the order of an epoch: a shuffle of 0..samples-1 that is a pure function of seed and epoch
// (Fisher-Yates from the end, drawn from the generator of evenweave.Key with PurposeOrder and the epoch).
func Order(seed uint64, epoch int64, samples int) []int32 {
	order := make([]int32, samples)
	for i := range order {
		order[i] = int32(i)
	}
	g := evenweave.NewGenerator(evenweave.Key(seed, evenweave.PurposeOrder, uint64(epoch)))
	for i := samples - 1; i > 0; i-- {
		j := g.Below(uint64(i) + 1)
		order[i], order[j] = order[j], order[i]
	}
	return order
}
