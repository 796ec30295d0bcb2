package coordinator

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
)

// TestAnUnknownWorldFitsIntoARecord: a world of a few may have thousands of spares, and a stranger may register some.
func TestAnUnknownWorldFitsIntoARecord(t *testing.T) {
	view := cluster.View{Job: &job.Job{UUID: "u", Generation: 7}}
	large := view
	for i := range 4096 {
		large.Members = append(large.Members, job.Member{ID: fmt.Sprint("worker-", i),
			Address: strings.Repeat("a", 255) + ":65535"})
		view.Members = append(view.Members, job.Member{ID: fmt.Sprint("worker-", i),
			Address: strings.Repeat("a", 60) + ":7000"})
	}
	if w := unknownWorld(large); len(w.Away) == 4096 || len(w.Away) < 2000 {
		t.Errorf("%d members with the longest addresses are in the record", len(w.Away))
	}
	w := unknownWorld(view)
	b, err := json.Marshal(w)
	if err == nil {
		err = w.Validate()
	}
	if err != nil || len(b) > mostOfWorld || len(w.Away) != 4096 || w.Away[0].ID != "worker-0" || w.Generation != 8 {
		t.Errorf("a record of %d bytes, %d members: %v", len(b), len(w.Away), err)
	}
}
