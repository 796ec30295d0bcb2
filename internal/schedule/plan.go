package schedule

import (
	"fmt"
	"math"
)

// maxMicroBatches bounds V, so that V coverage counters fit into a step's buffer and 2^62/V stays a useful limit.
const maxMicroBatches = 1 << 16

// Plan is the part of a spec that fixes which samples each step uses. Steps count committed updates: a state at step t
// goes on with update index t, from 0.
type Plan struct {
	Seed        uint64
	Samples     int // samples in the training set
	GlobalBatch int // samples in one step
	MicroBatch  int // samples in one micro-batch; divides GlobalBatch
}

// Validate returns an error that names the first impossible setting, or nil. The other methods expect a valid plan.
func (p Plan) Validate() error {
	switch {
	case p.Samples < 1 || p.Samples > math.MaxInt32:
		return fmt.Errorf("schedule: %d training samples: expected 1 to %d", p.Samples, math.MaxInt32)
	case p.GlobalBatch < 1 || p.GlobalBatch > math.MaxInt32:
		return fmt.Errorf("schedule: global batch %d: expected 1 to %d", p.GlobalBatch, math.MaxInt32)
	case p.MicroBatch < 1 || p.GlobalBatch%p.MicroBatch != 0:
		return fmt.Errorf("schedule: micro-batch %d does not divide the global batch %d: choose one of its divisors",
			p.MicroBatch, p.GlobalBatch)
	case p.MicroBatches() > maxMicroBatches:
		return fmt.Errorf("schedule: %d micro-batches a step (global batch %d / micro-batch %d): at most %d; choose "+
			"a larger micro-batch", p.MicroBatches(), p.GlobalBatch, p.MicroBatch, maxMicroBatches)
	}
	return nil
}

// MicroBatches returns V, the number of micro-batches in a step.
func (p Plan) MicroBatches() int { return p.GlobalBatch / p.MicroBatch }

// StepsPerEpoch returns the number of steps that use every sample once; the last of them may be padded.
func (p Plan) StepsPerEpoch() int64 {
	return (int64(p.Samples) + int64(p.GlobalBatch) - 1) / int64(p.GlobalBatch)
}

// Position returns the epoch of update index step >= 0, from 0, and which step of that epoch it is.
func (p Plan) Position(step int64) (epoch, within int64) {
	return step / p.StepsPerEpoch(), step % p.StepsPerEpoch()
}
