package coordinator

import (
	"slices"
	"strings"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// TestRefusedMembersAreSaid: the coordinator says which member it does not admit, and why; then, that it has gone.
func TestRefusedMembersAreSaid(t *testing.T) {
	layout, err := state.OfJob(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	j := job.Job{Numerics: "numerics", NumericsParts: "AAAABBBBCCCC"}
	alike := job.Member{ID: "a", Numerics: j.Numerics, NumericsParts: j.NumericsParts, Protocol: job.Protocol}
	other := job.Member{ID: "b", Numerics: "others", NumericsParts: "AAAAXXXXYYYY", Protocol: job.Protocol}
	old := job.Member{ID: "c", Numerics: j.Numerics, NumericsParts: j.NumericsParts, Protocol: job.Protocol - 1}
	before, after := cluster.View{Job: &j}, cluster.View{Job: &j, Members: []job.Member{alike, other, old}}

	refused := map[string]string{}
	for _, e := range memberChanges(before, after, layout) {
		if c := e.(progress.MemberChange); c.What == progress.Refused {
			refused[c.ID] = c.Detail
		}
	}
	if len(refused) != 2 || !strings.Contains(refused["c"], "protocol") {
		t.Errorf("refused %v, expected b for its numerics and c for its protocol", refused)
	}
	for _, part := range []string{"others", "first in the gradient of "} {
		if !strings.Contains(refused["b"], part) {
			t.Errorf("b is refused with %q, which does not say %q", refused["b"], part)
		}
	}
	for _, e := range memberChanges(after, after, layout) {
		t.Errorf("said twice: %+v", e)
	}
	unknown := after // the job's numerics are those of the first member: the others are refused once it has them
	unknown.Job = &job.Job{}
	var late []string
	for _, e := range memberChanges(unknown, after, layout) {
		if c := e.(progress.MemberChange); c.What == progress.Refused {
			late = append(late, c.ID)
		}
	}
	if !slices.Equal(late, []string{"b"}) {
		t.Errorf("once the job has numerics %v are refused, expected b", late)
	}
	gone := memberChanges(after, before, layout)
	if !slices.ContainsFunc(gone, func(e progress.Event) bool {
		c := e.(progress.MemberChange)
		return c.ID == "b" && c.What == progress.Lost
	}) {
		t.Errorf("after b has gone: %v", gone)
	}
}
