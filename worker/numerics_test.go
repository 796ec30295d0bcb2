package worker

import (
	"strings"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
)

// TestOtherNumericsSayWhatToDo: where another process of the same local run gives the job's bits, plug-in and processor
// cannot be the cause.
func TestOtherNumericsSayWhatToDo(t *testing.T) {
	r, err := newReplica(job.Job{}, example.NewSoftmax())
	if err != nil {
		t.Fatal(err)
	}
	l := &Loop{ID: "b", replica: r}
	for _, row := range []struct {
		other, own job.Member
		want       string
	}{
		{job.Member{Host: "h", Address: "unix:a.sock"}, job.Member{Host: "h", Address: "unix:b.sock"},
			"run `evenweave verify`"},
		{job.Member{Host: "h", Address: "unix:a.sock", Numerics: "other"},
			job.Member{Host: "h", Address: "unix:b.sock"}, "class of processor"}, // the job goes on on another machine
		{job.Member{Host: "h", Address: "10.0.0.1:1"}, job.Member{Host: "h", Address: "10.0.0.1:2"},
			"class of processor"},
	} {
		row.own.ID, row.own.Numerics = "b", "mine"
		if row.other.Numerics == "" {
			row.other.Numerics = "job's"
		}
		err := l.otherNumerics(cluster.View{Job: &job.Job{Numerics: "job's"},
			Members: []job.Member{row.other, row.own}})
		if !strings.Contains(err.Error(), row.want) {
			t.Errorf("beside %+v: %v, want %q", row.other, err, row.want)
		}
	}
}
