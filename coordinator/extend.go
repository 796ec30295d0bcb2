package coordinator

import (
	"fmt"
	"strings"
	"time"

	"evenweave"
	"evenweave/internal/job"
)

// goOn returns the spec to go on with: the recorded one, or a longer one if the flags ask for that and allow it. step
// is the newest durable one; whose and remedy say what was recorded and what to do otherwise.
func (c *Coordinator) goOn(recorded job.Spec, step int64, whose, remedy string) (job.Spec, error) {
	diff := c.Spec.Diff(recorded)
	switch {
	case len(diff) == 0:
		return recorded, nil
	case !c.Spec.LongerThan(recorded):
		return recorded, fmt.Errorf("%s another spec: %s; %s", whose, strings.Join(diff, "; "), remedy)
	case !c.Extend:
		return recorded, fmt.Errorf("%s another spec: %s; to train for longer, add --extend; else %s",
			whose, strings.Join(diff, "; "), remedy)
	}
	if d, ok := c.Model.(evenweave.Describer); ok && d.Schedule() != "" {
		return recorded, fmt.Errorf("%s another spec: %s; it cannot be extended: %s",
			whose, strings.Join(diff, "; "), d.Schedule())
	}
	return recorded.Extended(c.Spec, step, time.Now().UTC())
}
