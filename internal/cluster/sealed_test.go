package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/job"
	"evenweave/internal/security"
)

// dialSealed is a client of a cluster whose records are sealed by the key in a directory.
func dialSealed(t *testing.T, s *etcdtest.Server, dir string) *cluster.Client {
	t.Helper()
	if err := security.KeepSeal(dir, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	over, err := security.For([]string{s.Endpoint()}).SealedBy(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	c, err := cluster.DialOver(over, []string{s.Endpoint()}, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestEtcdNeedNotBeBelieved: what a process that can write to etcd puts in the place of a sealed record is named, and
// the record before stands: one of its own, one that is damaged, an old one of this job, or one of another key. The
// leader's next transaction writes over it.
func TestEtcdNeedNotBeBelieved(t *testing.T) {
	s := etcdtest.Start(t, "")
	key := filepath.Join(t.TempDir(), "seal")
	c, stranger := dialSealed(t, s, key), raw(t, s)
	term := campaign(t, c, "leader")
	defer term.Resign(within(t))
	read := func() cluster.View {
		t.Helper()
		v, err := c.Read(within(t))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	keep := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	values := func() map[string]string {
		t.Helper()
		all := map[string]string{}
		for _, key := range []string{"job", "world", "done"} {
			r, err := stranger.Get(within(t), "/evenweave/test/"+key)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Kvs) > 0 {
				all[key] = string(r.Kvs[0].Value)
			}
		}
		return all
	}
	keep("create", term.CreateJob(within(t), cluster.View{}, created("u")))
	keep("world", term.PublishWorld(within(t), read(), known(1)))
	keep("end", term.Finish(within(t), read(), job.Done{Job: "u", Step: 5}))
	before := values()
	keep("reopen", term.Reopen(within(t), read()))
	keep("the next world", term.PublishWorld(within(t), read(), known(2)))
	now := values()
	if len(before) != 3 || len(now) != 2 || now["job"] == before["job"] {
		t.Fatalf("records %d, then %d: all are written together", len(before), len(now))
	}

	log := &lines{}
	watcher := cluster.NewWatcher(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { watcher.Run(ctx, c) })
	t.Cleanup(func() { cancel(); running.Wait() })
	await(t, watcher, "the world", func(v cluster.View) bool { return v.World != nil })

	mine := dialSealed(t, s, filepath.Join(t.TempDir(), "seal"))
	plain := dial(t, s)
	for _, c := range []struct {
		names string
		do    func()
	}{
		{"world: it has no seal", func() { put(t, stranger, "world", `{"job":"u","generation":9,"peers":[]}`) }},
		{"world: invalid character", func() { put(t, stranger, "world", "{x") }},
		{"world: its seal is damaged", func() {
			put(t, stranger, "world", strings.Replace(now["world"], `"generation":2`, `"generation":8`, 1))
		}},
		{"world: its seal is damaged", func() { put(t, stranger, "world", now["job"]) }},
		{"world: it has number", func() { put(t, stranger, "world", before["world"]) }},
		{"done: it has number", func() { put(t, stranger, "done", before["done"]) }},
		{"job: it has no seal", func() { put(t, stranger, "job", `{"uuid":"v"}`) }},
		{"job: it has number", func() {
			for key, value := range before {
				put(t, stranger, key, value)
			}
		}},
	} {
		c.do()
		v := await(t, watcher, c.names, func(v cluster.View) bool {
			return v.Spoilt() && strings.Contains(errors.Join(v.Skipped...).Error(), "/evenweave/test/"+c.names)
		})
		if v.Job == nil || v.Job.UUID != "u" || v.World == nil || v.World.Generation != 2 || v.Done != nil {
			t.Fatalf("%s: the view is %+v", c.names, v)
		}
		err := term.ReplaceJob(within(t), v, *v.Job)
		for errors.Is(err, cluster.ErrFenced) { // the view was between two of the stranger's writes
			v, changed := watcher.View()
			if err = term.ReplaceJob(within(t), v, *v.Job); err != nil {
				<-changed
			}
		}
		keep("repair after "+c.names, err)
		v = await(t, watcher, "the repair after "+c.names, func(v cluster.View) bool { return !v.Spoilt() })
		if v.World == nil || v.World.Generation != 2 || v.Done != nil || read().World.Generation != 2 {
			t.Fatalf("%s: repaired to %+v", c.names, v)
		}
	}
	if log.count("cannot be used") == 0 {
		t.Error("nothing was named in the log")
	}
	for name, client := range map[string]*cluster.Client{"another key": mine, "no key": plain} {
		v, err := client.Read(within(t))
		if name == "no key" && (err != nil || v.World.Generation != 2) {
			t.Errorf("without a key: %+v, %v", v, err)
		}
		if name == "another key" && (err == nil || !strings.Contains(err.Error(), "vouches")) {
			t.Errorf("a process of another run reads %+v, %v", v, err)
		}
	}
	world := await(t, watcher, "the world", func(v cluster.View) bool { return true }).World
	if w, err := c.OpenWorld(world.Record); err != nil || w.Generation != 2 {
		t.Errorf("passed on: %+v, %v", w, err)
	}
	if _, err := c.OpenWorld([]byte(`{"job":"u","generation":3}`)); err == nil {
		t.Error("a world without a seal was taken from a peer")
	}
}

// TestALeaderNeedsTheJobsNewestRecord: one that is about to lead goes on without a world that cannot be used, but by no
// older job's record, nor by one that does not say which generation follows: no member obeys an older one.
func TestALeaderNeedsTheJobsNewestRecord(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, stranger := dialSealed(t, s, filepath.Join(t.TempDir(), "seal")), raw(t, s)
	term := campaign(t, c, "leader")
	defer term.Resign(within(t))
	publish := func(generation int64) (job, world string) {
		t.Helper()
		v, err := c.Read(within(t))
		if err == nil {
			err = term.PublishWorld(within(t), v, known(generation))
		}
		if err != nil {
			t.Fatal(err)
		}
		r, err := stranger.Get(within(t), "/evenweave/test/", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range r.Kvs {
			switch string(kv.Key) {
			case "/evenweave/test/job":
				job = string(kv.Value)
			case "/evenweave/test/world":
				world = string(kv.Value)
			}
		}
		return job, world
	}
	refused := func(names string) {
		t.Helper()
		if v, err := c.ReadToLead(within(t)); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("expected an error that names %q: %v, %+v", names, err, v.Job)
		}
	}
	if err := term.CreateJob(within(t), cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	put(t, stranger, "world", "{x")
	refused("world: ")
	if _, err := stranger.Delete(within(t), "/evenweave/test/world"); err != nil {
		t.Fatal(err)
	}
	oldJob, oldWorld := publish(1)
	newJob, _ := publish(2)
	put(t, stranger, "job", oldJob)
	refused("job: it has number")
	put(t, stranger, "job", newJob)
	put(t, stranger, "world", oldWorld)
	if v, err := c.ReadToLead(within(t)); err != nil || v.World != nil || v.Job.Generation != 2 {
		t.Errorf("an old world: %+v, %v", v, err)
	}
}

// TestTheLargestWorldIsPublished, and read: etcd takes it in one request with the other records.
func TestTheLargestWorldIsPublished(t *testing.T) {
	s := etcdtest.Start(t, "")
	c := dialSealed(t, s, filepath.Join(t.TempDir(), "seal"))
	term := campaign(t, c, "leader")
	defer term.Resign(within(t))
	if err := term.CreateJob(within(t), cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	w := job.World{Job: "u", Generation: 1, Since: 1, Keys: map[string][]string{}}
	for i := range 3000 {
		p := job.Peer{ID: fmt.Sprintf("%063d", i), Address: strings.Repeat("a", 255) + ":65535"}
		if i >= job.MaxWorld {
			w.Away = append(w.Away, p)
			continue
		}
		w.Peers, w.Fresh = append(w.Peers, p), append(w.Fresh, p.ID)
		w.Keys[p.ID] = []string{strings.Repeat("k", 64), strings.Repeat("l", 64)}
	}
	v, err := c.Read(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := term.PublishWorld(within(t), v, w); err == nil || !strings.Contains(err.Error(), "would have") {
		t.Errorf("a record larger than readers take: %v", err)
	}
	w.Fit(job.MaxWorldBytes - 64<<10)
	if err := term.PublishWorld(within(t), v, w); err != nil {
		t.Fatal(err)
	}
	v, err = c.Read(within(t))
	if err != nil || v.World.Size() != job.MaxWorld || len(v.World.Away) != len(w.Away) || len(w.Away) == 0 {
		t.Fatalf("read: %d members and %d away, %v", v.World.Size(), len(v.World.Away), err)
	}
	if w, err := c.OpenWorld(v.World.Record); err != nil || w.Size() != job.MaxWorld {
		t.Errorf("passed on by a peer: %d members, %v", w.Size(), err)
	}
}
