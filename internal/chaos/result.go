package chaos

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"sync"

	"crypto/sha256"

	"evenweave/checkpoint"
	"evenweave/internal/progress"
	"evenweave/internal/schedule"
)

// Result is a run's result. It observes the run's events.
type Result struct {
	mu          sync.Mutex
	done        *progress.Done
	steps       map[int]string // the loss; several where a step was reported again with another
	evaluations map[int]progress.Evaluation
	checkpoints map[int64]string // fingerprint by step, from the files
	ledger      string
}

func newResult() *Result {
	return &Result{steps: map[int]string{}, evaluations: map[int]progress.Evaluation{},
		checkpoints: map[int64]string{}}
}

// Observe implements progress.Observer.
func (r *Result) Observe(record progress.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e := record.Event.(type) {
	case progress.Done:
		r.done = &e
	case progress.Step:
		switch loss := fmt.Sprint(e.Loss); r.steps[e.Step] {
		case "", loss:
			r.steps[e.Step] = loss
		default:
			r.steps[e.Step] += " and " + loss
		}
	case progress.Evaluation:
		r.evaluations[e.Step] = e
	}
}

func (r *Result) finished() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done != nil
}

// Weights is the SHA-256 of the parameters after the last step.
func (r *Result) Weights() string { return r.done.WeightsSHA256 }

// Evaluations is how many there were.
func (r *Result) Evaluations() int { return len(r.evaluations) }

// Checkpoints is how many durable states there are.
func (r *Result) Checkpoints() int { return len(r.checkpoints) }

// Ledger is the ledger of the last step in one line.
func (r *Result) Ledger() string { return r.ledger }

// collect reads what the run left in its directory.
func (r *Result) collect(dir string) error {
	if r.done == nil || len(r.steps) == 0 {
		return fmt.Errorf("the run in %s ended without a result, or reported no step; see %s", dir,
			filepath.Join(dir, "logs"))
	}
	ctx := context.Background()
	store, err := checkpoint.Open(filepath.Join(dir, "checkpoints"), checkpoint.Options{})
	if err != nil {
		return err
	}
	entries, err := store.List()
	if err != nil {
		return err
	}
	newest := int64(-1)
	for _, e := range entries {
		m, payload, err := store.Read(ctx, e.Path)
		if err != nil {
			return err
		}
		if old, ok := r.checkpoints[m.Step]; ok && old != m.Fingerprint {
			return fmt.Errorf("%s: two checkpoints of step %d differ: fingerprints %s and %s",
				dir, m.Step, old, m.Fingerprint)
		}
		r.checkpoints[m.Step] = m.Fingerprint
		if m.Step > newest {
			newest = m.Step
			var c *checkpoint.Checkpoint
			if c, err = checkpoint.Load(ctx, e.Path); err == nil {
				r.ledger, err = describe(c.State.Ledger)
			}
		}
		if err = firstError(err, payload.Close()); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

func describe(l *schedule.Ledger) (string, error) {
	b, err := l.AppendBinary(nil)
	sum := sha256.Sum256(b)
	return fmt.Sprintf("%d epochs complete, %d of %d samples used in the open one, sha256 %s",
		l.Epochs(), l.Used(), l.Samples(), hex.EncodeToString(sum[:4])), err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Differences names where another run of the same job differs. It may have more checkpoints (of a halt), but none may
// be missing.
func (r *Result) Differences(other *Result) []string {
	var out []string
	differ := func(what string, a, b any) {
		if a != b {
			out = append(out, fmt.Sprintf("%s: %v, under faults %v", what, a, b))
		}
	}
	a, b := r.done, other.done
	differ("last step", a.Step, b.Step)
	differ("weights", a.WeightsSHA256, b.WeightsSHA256)
	differ("fingerprint of the state", a.Fingerprint, b.Fingerprint)
	differ("ledger", r.ledger, other.ledger)
	differ("test figures", fmt.Sprint(a.Figures), fmt.Sprint(b.Figures))
	for step, loss := range r.steps {
		if o, ok := other.steps[step]; ok { // its last reporter may have died with the report
			differ(fmt.Sprintf("loss of step %d", step), loss, o)
		}
	}
	for step, e := range r.evaluations {
		o, ok := other.evaluations[step]
		if !ok {
			out = append(out, fmt.Sprintf("the evaluation of step %d is missing", step))
			continue
		}
		differ(fmt.Sprintf("test figures of step %d", step), fmt.Sprint(e.Figures), fmt.Sprint(o.Figures))
	}
	for step, fingerprint := range r.checkpoints {
		o, ok := other.checkpoints[step]
		if !ok {
			o = "missing"
		}
		differ(fmt.Sprintf("checkpoint of step %d", step), fingerprint, o)
	}
	return out
}
