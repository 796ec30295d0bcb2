package worker

import (
	"fmt"
	"slices"
	"strings"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/probe"
)

// refused says whether this worker computes other bits than the job's members.
func (l *Loop) refused(view cluster.View) bool {
	m, _ := view.Member(l.ID)
	return m.Numerics != "" && m.Numerics != view.Job.Numerics
}

// otherNumerics says what this worker computes otherwise than the job's members.
func (l *Loop) otherNumerics(view cluster.View) error {
	m, _ := view.Member(l.ID)
	where := probe.FirstDifference(l.replica.layout, m.NumericsParts, view.Job.NumericsParts)
	if where != "" {
		where = ", first in " + where
	}
	why := "another XLA plug-in, class of processor (docs/exactness.md), XLA_FLAGS or build of this program would " +
		"change bits; use those of the job"
	if besides(view, m) {
		why = "another worker of this machine gives the job's, so the model or the data give other bits each time " +
			"they are computed, or the program was edited since the job began: run `evenweave verify`"
	}
	return fmt.Errorf("numerics differ%s: this worker's golden probe gives %s, the job's is %s: %s", where, m.Numerics,
		view.Job.Numerics, why)
}

// besides says whether a member with the job's numerics is a process of the same local run, and so of the same program,
// plug-in and processor.
func besides(view cluster.View, m job.Member) bool {
	return slices.ContainsFunc(view.Members, func(other job.Member) bool {
		return other.Numerics == view.Job.Numerics && other.Host == m.Host && strings.HasPrefix(m.Address, "unix:")
	})
}
