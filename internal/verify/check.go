package verify

import (
	"fmt"

	"evenweave"
	"evenweave/internal/guard"
)

// Check finds what is certain to fail before anything is computed: the first samples of each part of the data are
// loaded, and shown to a model that can check them; evaluate says that the model will be evaluated, which it tries too.
func Check(m evenweave.Model, sets evenweave.Sets, microBatch int, evaluate bool) error {
	for _, part := range []struct {
		name string
		data evenweave.Data
		used bool
	}{{"training", sets.Train, true}, {"test", sets.Test, evaluate}, {"held-out", sets.HeldOut, evaluate}} {
		if part.data == nil || !part.used {
			continue
		}
		if err := checkData(m, part.data, microBatch); err != nil {
			return fmt.Errorf("the first %s samples: %w", part.name, err)
		}
	}
	if !evaluate || sets.Test == nil && sets.HeldOut == nil {
		return nil
	}
	return CheckEvaluation(m)
}

// CheckEvaluation has a model build its evaluation, if it is a Checker.
func CheckEvaluation(m evenweave.Model) (err error) {
	defer guard.Recover(&err)
	if c, ok := m.(evenweave.Checker); ok {
		if err = c.CheckEvaluation(); err != nil {
			err = fmt.Errorf("the model cannot be evaluated, on test or held-out samples: %w", err)
		}
	}
	return err
}

func checkData(m evenweave.Model, d evenweave.Data, microBatch int) (err error) {
	defer guard.Recover(&err)
	b := &evenweave.Batch{Samples: make([]int32, microBatch)}
	for i := range b.Samples {
		if b.Samples[i] = evenweave.Padding; i < d.Len() {
			b.Samples[i] = int32(i)
		}
	}
	if err := d.Load(b); err != nil {
		return err
	}
	if c, ok := m.(evenweave.Checker); ok {
		return c.CheckBatch(b)
	}
	return nil
}
