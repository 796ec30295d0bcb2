package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
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

// TestTermsGoOnWhereEtcdHasLostItsData: the first checkpoint of a new job has a term above all that the directory
// names, as every other: files that a lost term has left half written are swept.
func TestTermsGoOnWhereEtcdHasLostItsData(t *testing.T) {
	etcd, dir := etcdtest.Start(t, ""), t.TempDir()
	client, err := cluster.Dial([]string{etcd.Endpoint()}, "job")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	left := filepath.Join(dir, "checkpoints", ".step-00000020-term-0000000700.ckpt.tmp")
	if err := errors.Join(os.Mkdir(filepath.Dir(left), 0o700), os.WriteFile(left, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	c, err := openCoordinator(Config{Name: "job", Dir: dir, Backend: "go", Model: example.NewSoftmax(), Keep: 3,
		Spec:     job.Spec{Task: "tiny", Data: "points", Samples: 100, GlobalBatch: 10, MicroBatch: 10, Epochs: 1},
		Observer: &eventLog{}, Log: slog.New(slog.DiscardHandler),
		Limits: policy.Limits{Min: 1, Max: 2, TTL: time.Minute}}, client)
	if err != nil {
		t.Fatal(err)
	}
	c.self = job.Leader{ID: "one", Address: "127.0.0.1:1"}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx, nil) }()
	for view, changed := c.views.View(); view.Job == nil && ctx.Err() == nil; view, changed = c.views.View() {
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	stop()
	<-ended
	entries, err := c.archive.List()
	if err != nil || len(entries) != 1 || entries[0].Term != 701 {
		t.Errorf("checkpoints: %v, %v; want one of term 701", entries, err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left half written is still there")
	}
}
