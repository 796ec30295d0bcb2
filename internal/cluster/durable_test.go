package cluster

import (
	"encoding/json"
	"testing"
	"time"

	"evenweave/internal/job"
)

type plain struct{}

func (plain) Seal(_ string, _ int64, record []byte) ([]byte, error) { return record, nil }
func (plain) Unseal(_ string, value []byte) ([]byte, int64, error)  { return value, 0, nil }

// TestADurableStepOutlivesTheEnd: a job that ended at step 1000 goes on (Reopen, Extend). Until its next world the
// job's record still names the step.
func TestADurableStepOutlivesTheEnd(t *testing.T) {
	k := keys{}
	r := records{Job: &job.Job{UUID: "u"}, World: &job.World{Job: "u", Generation: 3, DurableStep: 100},
		Done: &job.Done{Job: "u", Step: 1000}}
	durable := func() (n int64) {
		ops, err := r.puts(plain{}, k, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var j job.Job
		if err := json.Unmarshal(ops[0].ValueBytes(), &j); err != nil {
			t.Fatal(err)
		}
		r.Job = &j
		return j.DurableStep
	}
	if n := durable(); n != 1000 {
		t.Fatal(n)
	}
	r.Done = nil // Reopen
	if n := durable(); n != 1000 {
		t.Errorf("after the job is reopened its record names step %d", n)
	}
}
