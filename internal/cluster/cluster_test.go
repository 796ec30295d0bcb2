package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/job"
)

// TestMain gives all tests a proxy that does not run, as many clusters have one for outside traffic: no request may use
// it.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		_ = os.Setenv(name, "http://127.0.0.1:9")
	}
	goleak.VerifyTestMain(m)
}

// created is a valid job record.
func created(uuid string) job.Job {
	spec := job.Spec{Task: "tiny", Samples: 100, GlobalBatch: 10, MicroBatch: 5, Epochs: 1}
	return job.Job{UUID: uuid, Backend: "xla", Spec: spec}
}

// leader is a valid leader record.
func leader(id string) job.Leader { return job.Leader{ID: id, Address: "127.0.0.1:1"} }

const (
	ttl      = 20 * time.Second // leases are given up; no stall of a loaded machine ends one before
	shortest = 2 * time.Second  // that etcd grants, for a lease that must run out
)

func dial(t *testing.T, s *etcdtest.Server) *cluster.Client {
	t.Helper()
	return dialAt(t, s.Endpoint())
}

func dialAt(t *testing.T, endpoint string) *cluster.Client {
	t.Helper()
	c, err := cluster.Dial([]string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// within bounds a test's requests; only a hang takes so long, however busy the machine is.
func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// watch runs a watcher until the test ends.
func watch(t *testing.T, c *cluster.Client) *cluster.Watcher {
	b := cluster.NewWatcher(nil)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx, c) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return b
}

// await waits for a view that holds accepts.
func await(t *testing.T, b *cluster.Watcher, what string, holds func(cluster.View) bool) cluster.View {
	t.Helper()
	ctx := within(t)
	for {
		v, changed := b.View()
		if holds(v) {
			return v
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s; the view is %+v", what, v)
		}
	}
}

func campaign(t *testing.T, c *cluster.Client, id string) *cluster.Term {
	t.Helper()
	term, err := c.Campaign(within(t), leader(id), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return term
}

// TestTheSecondLeaderFencesTheFirst: a coordinator that has lost the leadership can write nothing, however late it
// wakes up.
func TestTheSecondLeaderFencesTheFirst(t *testing.T) {
	s := etcdtest.Start(t, "")
	ctx := within(t)
	old, young := dial(t, s), dial(t, s)
	first := campaign(t, old, "first")
	if err := first.CreateJob(ctx, cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	if err := first.CreateJob(ctx, cluster.View{}, created("again")); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a job was created over another: %v", err)
	}
	read, err := old.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if read.Leader == nil || read.Leader.ID != "first" {
		t.Errorf("leader %+v, want first", read.Leader)
	}
	first.Resign(ctx)
	second := campaign(t, young, "second")
	defer second.Resign(ctx)
	if second.Number() <= first.Number() {
		t.Errorf("terms %d, %d do not rise", first.Number(), second.Number())
	}
	for name, err := range map[string]error{
		"a world": first.PublishWorld(ctx, read, known(1)),
		"the job": first.ReplaceJob(ctx, read, created("u")),
		"the end": first.Finish(ctx, read, job.Done{Job: "u"}),
	} {
		if !errors.Is(err, cluster.ErrFenced) {
			t.Errorf("the old leader wrote %s: %v", name, err)
		}
	}
	if err := second.PublishWorld(ctx, read, known(1)); err != nil {
		t.Errorf("the new leader cannot publish: %v", err)
	}
	if err := second.PublishWorld(ctx, read, known(2)); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a world was published over one that had not been read: %v", err)
	}
}

// TestAMemberOutlivesEtcd: etcd is restarted on its data; the member is registered again, the world is as it was.
func TestAMemberOutlivesEtcd(t *testing.T) {
	s := etcdtest.Start(t, "")
	ctx := within(t)
	c := dial(t, s)
	term := campaign(t, c, "leader")
	if err := term.CreateJob(ctx, cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	watcher := watch(t, c)
	m := cluster.NewMembership(c, job.Member{ID: "a", Job: "u", Address: "127.0.0.1:1", Protocol: job.Protocol},
		shortest, slog.New(slog.DiscardHandler))
	registering, leave := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { m.Run(registering) })
	defer running.Wait()
	defer leave()
	registered := func(v cluster.View) bool { _, ok := v.Member("a"); return ok && v.Job != nil }
	before := await(t, watcher, "registration", registered)

	s.Halt()
	if v, _ := watcher.View(); !registered(v) {
		t.Error("the last view is gone with etcd")
	}
	if _, err := c.Read(ctx); err == nil {
		t.Error("reading from a stopped etcd succeeds")
	}
	ends(t, "the member to lose its lease", func() bool { return !m.Registered() })
	s.Resume()
	after := await(t, watcher, "registration after the restart", func(v cluster.View) bool {
		return registered(v) &&
			v.Revision > before.Revision
	})
	if after.Job.UUID != "u" {
		t.Errorf("job %q after the restart", after.Job.UUID)
	}
	m.Update(func(m *job.Member) { m.Leaving = true })
	await(t, watcher, "the request to leave", func(v cluster.View) bool { m, _ := v.Member("a"); return m.Leaving })
	leave()
	await(t, watcher, "deregistration", func(v cluster.View) bool { return len(v.Members) == 0 })
	term.Resign(ctx)
}
