package worker

import (
	"errors"
	"fmt"

	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
)

// take makes an arrival the replica's, and gives its memory back.
func (c *catchUp) take(a arrival, r *replica, flat []float32) error {
	err := r.take(a, flat)
	if a.update != nil && a.update.words != nil {
		c.memory <- a.update.words
	}
	return err
}

// take puts what has arrived into the replica. After an error the member has no state.
func (r *replica) take(a arrival, flat []float32) (err error) {
	switch {
	case a.state != nil:
		err = r.adopt(a.state)
		r.unproved = true
	case a.update != nil:
		err = r.repeat(a.update, flat)
	case a.led != nil && (!r.known || r.step != a.led.step || r.expected != a.led.fingerprint):
		err = fmt.Errorf("step %d leads to fingerprint %s, this member has %s after step %d", a.led.step,
			a.led.fingerprint, r.expected, r.step)
	}
	if err != nil {
		r.forget()
	}
	return err
}

// forget drops a state that does not lead to the others'.
func (r *replica) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.unproved = false, false
}

// counts reports whether this member has a state that others may rely on.
func (r *replica) counts() bool { return r.known && !r.unproved }

// proves reports whether an unproved state is the one that the others have chosen; then it counts.
func (r *replica) proves(c policy.Choice) bool {
	if !r.known || !r.unproved || len(c.Holders) == 0 || r.step != c.Step ||
		r.expected != state.Fingerprint(c.Fingerprint) {
		return false
	}
	r.unproved = false
	return true
}

// repeat applies a step that other members have computed.
func (r *replica) repeat(u *update, flat []float32) error {
	if !r.known || u.step != r.step+1 || u.step > r.job.Spec.TotalSteps() ||
		len(u.samples) != r.job.Spec.GlobalBatch {
		return fmt.Errorf("a step %d of %d samples, this member has step %d", u.step, len(u.samples), r.step)
	}
	epoch, _ := r.job.Spec.Plan().Position(r.step)
	err := errors.New("it was skipped, and this job skips no step")
	switch {
	case u.skipped && r.job.Spec.OnNonfinite == job.Skip:
		err = r.skip(epoch, u.samples, r.skips)
	case !u.skipped:
		err = r.apply(epoch, u, flat)
	}
	if err != nil {
		return fmt.Errorf("repeating step %d: %w", u.step, err)
	}
	return nil
}

func (r *replica) apply(epoch int64, u *update, flat []float32) error {
	if u.weight < 1 || u.weight > maxWeight {
		return fmt.Errorf("a weight of %d: expected 1 to %d", u.weight, int64(maxWeight))
	}
	if err := r.blocks.Check(u.exponents); err != nil {
		return err
	}
	sideBySide(len(r.scratch), func(i, n int) {
		lo, hi := r.blocks.Count()*i/n, r.blocks.Count()*(i+1)/n
		r.blocks.MeanOf(lo, hi, flat, u.words, u.exponents, u.weight)
	})
	r.blocks.Next(u.exponents, u.words[r.blocks.Words():], r.step)
	return r.update(epoch, u.samples, r.layout.Split(flat), u.exponents)
}
