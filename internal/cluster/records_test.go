package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/job"
)

// raw is an etcd client without our checks.
func raw(t *testing.T, s *etcdtest.Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := c.Put(within(t), "/evenweave/test/"+key, value); err != nil {
		t.Fatal(err)
	}
}

func record(id string) string {
	return fmt.Sprintf(`{"id":%q,"job":"u","address":"127.0.0.1:1","protocol":1,"a later build's field":[1]}`, id)
}

// TestABadMemberIsSkippedAndNamed: bad records under members hide neither the good ones nor the job.
func TestABadMemberIsSkippedAndNamed(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, stranger := dial(t, s), raw(t, s)
	term := campaign(t, c, "leader")
	defer term.Resign(within(t))
	if err := term.CreateJob(within(t), cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	bad := map[string]string{
		"zz": "{", "null": "null", "empty": "", "list": "[]", "other": record("b"),
		"unix": `{"id":"unix","job":"u","address":"unix:/run/docker.sock"}`,
		"port": `{"id":"port","job":"u","address":"h:0"}`, "big": `{"id":"big","job":"u","address":"h:1","x":"` +
			strings.Repeat("x", 70<<10) + `"}`,
		"\x1b[2J": "{", "up/down": record("up/down"),
	}
	for key, value := range bad {
		put(t, stranger, "members/"+key, value)
	}
	good := []string{"b"} // more than a page of them, and not registered in the order of their names
	for i := 100; i > 0; i-- {
		good = append(good, fmt.Sprintf("w%d", i))
	}
	for _, id := range good {
		put(t, stranger, "members/"+id, record(id))
	}
	put(t, stranger, "workers", "many")
	v, err := c.Read(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Members) != len(good) || v.Job == nil || v.Leader == nil || v.Workers != 0 {
		t.Fatalf("%d members of %d in a view of job %v, leader %v, %d workers", len(v.Members), len(good), v.Job,
			v.Leader, v.Workers)
	}
	for i, m := range v.Members {
		if m.ID != good[i] {
			t.Fatalf("member %d is %q, want %q: by registration", i, m.ID, good[i])
		}
	}
	if len(v.Skipped) != len(bad)+1 {
		t.Errorf("%d records are named, want %d: %v", len(v.Skipped), len(bad)+1, v.Skipped)
	}
	for _, err := range v.Skipped {
		if text := err.Error(); !strings.HasPrefix(text, "etcd key /evenweave/test/") ||
			!strings.Contains(text, "etcdctl del") || strings.ContainsAny(text, "\x1b\n") {
			t.Errorf("%q: want the key, what to do, and no control characters", text)
		}
	}
}

// TestABadRecordIsAnErrorThatNamesIt: without a valid job, world or end a view is useless.
func TestABadRecordIsAnErrorThatNamesIt(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, stranger := dial(t, s), raw(t, s)
	for key, values := range map[string][]string{
		"job": {"{", "null", `{"uuid":"u","spec":{"global_batch":0}}`, strings.Repeat(" ", 1<<20)},
		"world": {`[]`, `{"job":"u","generation":4,"patience":-1}`,
			`{"job":"u","generation":9223372036854775807}`},
		"done": {`{"step":-1}`, `"over"`},
	} {
		for _, value := range values {
			put(t, stranger, key, value)
			if _, err := c.Read(within(t)); err == nil || !strings.Contains(err.Error(), "/evenweave/test/"+key+":") ||
				!strings.Contains(err.Error(), "etcdctl") {
				t.Errorf("%s = %.50q: %v, want an error with the key and what to do", key, value, err)
			}
		}
		if _, err := stranger.Delete(within(t), "/evenweave/test/"+key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Read(within(t)); err != nil {
		t.Errorf("once the records are gone: %v", err)
	}
}

// TestABadLeaderIsSkippedAndNamed: members see all other changes, and the leader writes its own record again.
func TestABadLeaderIsSkippedAndNamed(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, stranger := dial(t, s), raw(t, s)
	term := campaign(t, c, "leader")
	if err := term.CreateJob(within(t), cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	watcher := watch(t, c)
	found, err := stranger.Get(within(t), "/evenweave/test/leader/", clientv3.WithPrefix())
	if err != nil || len(found.Kvs) != 1 {
		t.Fatal(found, err)
	}
	key := strings.TrimPrefix(string(found.Kvs[0].Key), "/evenweave/test/")
	for id, value := range map[string]string{"a": "{", "b": `{"id":"../x"}`, "c": `{"id":"another","address":"h:1"}`} {
		if _, err := stranger.Put(within(t), "/evenweave/test/"+key, value, clientv3.WithIgnoreLease()); err != nil {
			t.Fatal(err)
		}
		put(t, stranger, "members/"+id, record(id))
		v := await(t, watcher, "a member beside the leader's bad record",
			func(v cluster.View) bool { _, ok := v.Member(id); return ok })
		if another := id == "c"; another != (v.Leader != nil) || another != (len(v.Skipped) == 0) || !another &&
			!strings.HasPrefix(v.Skipped[0].Error(), "etcd key /evenweave/test/"+key+":") {
			t.Errorf("%s: leader %v, named %v", value, v.Leader, v.Skipped)
		}
		if err := term.ReplaceLeader(within(t), v); err != nil {
			t.Fatal(err)
		}
		v = await(t, watcher, "the leader's record", func(v cluster.View) bool {
			return v.Leader != nil &&
				*v.Leader == leader("leader")
		})
		if len(v.Skipped) > 0 {
			t.Errorf("%s: written again, and named %v", value, v.Skipped)
		}
		if err := term.ReplaceLeader(within(t), v); err != nil {
			t.Fatal(err)
		}
		if now, err := c.Read(within(t)); err != nil || now.Revision != v.Revision {
			t.Errorf("revision %d, %v: the leader wrote what was right at %d", now.Revision, err, v.Revision)
		}
	}
	term.Resign(within(t))
	v := await(t, watcher, "no leader", func(v cluster.View) bool { return v.Leader == nil })
	if err := term.ReplaceLeader(within(t), v); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("a leader of a term that is over wrote its record: %v", err)
	}
}

// lines collects a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// TestTheWatcherNamesWhatItCannotRead: once a change, not once a read; and it keeps reading.
func TestTheWatcherNamesWhatItCannotRead(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, stranger := dial(t, s), raw(t, s)
	log := &lines{}
	b := cluster.NewWatcher(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx, c) })
	t.Cleanup(func() { cancel(); running.Wait() })

	put(t, stranger, "members/zz", "{")
	for i := range 20 {
		id := fmt.Sprintf("w%d", i)
		put(t, stranger, "members/"+id, record(id))
		await(t, b, "a member beside a bad one", func(v cluster.View) bool { _, ok := v.Member(id); return ok })
	}
	if n := log.count("members/zz"); n != 1 {
		t.Errorf("a bad record is named %d times in 20 reads", n)
	}
	put(t, stranger, "world", "{")
	put(t, stranger, "members/zz", record("zz"))
	ends(t, "the world's record to be named",
		func() bool { return b.Err() != nil && log.count("/evenweave/test/world") > 0 })
	if n := log.count("/evenweave/test/world"); n != 1 {
		t.Errorf("a bad world is named %d times", n)
	}
	if _, err := stranger.Delete(within(t), "/evenweave/test/world"); err != nil {
		t.Fatal(err)
	}
	await(t, b, "the member, once the world can be read",
		func(v cluster.View) bool { _, ok := v.Member("zz"); return ok && len(v.Skipped) == 0 })
	if err := b.Err(); err != nil {
		t.Errorf("still away: %v", err)
	}
}

// ends polls until holds returns true.
func ends(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, tick := within(t), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func known(generation int64) job.World {
	return job.World{Job: "u", Generation: generation, Peers: []job.Peer{{ID: "a", Address: "127.0.0.1:1"}}}
}

// TestAPeersWorldCountsOnlyWhileEtcdIsAway: a forged one changes nothing while etcd answers; while etcd is away, a
// newer one is used until etcd answers again.
func TestAPeersWorldCountsOnlyWhileEtcdIsAway(t *testing.T) {
	s := etcdtest.Start(t, "")
	ctx := within(t)
	c := dial(t, s)
	term := campaign(t, c, "leader")
	if err := term.CreateJob(ctx, cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	read, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := term.PublishWorld(ctx, read, known(3)); err != nil {
		t.Fatal(err)
	}
	watcher := watch(t, c)
	await(t, watcher, "the world", func(v cluster.View) bool { return v.World != nil })
	watcher.Learn(known(1 << 53))
	if _, err := c.SetWorkers(ctx, 3); err != nil {
		t.Fatal(err)
	}
	v := await(t, watcher, "the wanted worker count", func(v cluster.View) bool { return v.Workers == 3 })
	if v.World.Generation != 3 {
		t.Errorf("a peer's record made it generation %d, etcd has 3", v.World.Generation)
	}
	term.Resign(ctx)

	s.Halt()
	watcher.Learn(known(5)) // before the watcher has noticed
	v = await(t, watcher, "the peer's world while etcd is away",
		func(v cluster.View) bool { return v.World.Generation == 5 })
	ends(t, "the watcher's error", func() bool { return watcher.Err() != nil })
	for _, w := range []job.World{{Job: "u", Generation: 7, Backoff: -1}, {Job: "other", Generation: 9}, known(4),
		{Job: "u", Generation: 1 << 60}} {
		watcher.Learn(w)
	}
	if v, _ = watcher.View(); v.World.Generation != 5 {
		t.Errorf("generation %d, want 5: the others are invalid, of another job, and older", v.World.Generation)
	}
	watcher.Learn(known(6))
	if v, _ = watcher.View(); v.World.Generation != 6 {
		t.Errorf("generation %d, want 6 at once", v.World.Generation)
	}
	s.Resume()
	await(t, watcher, "etcd's world", func(v cluster.View) bool { return v.World != nil && v.World.Generation == 3 })
}

func TestEndpoints(t *testing.T) {
	for given, want := range map[string]string{
		"http://a:2379": "http://a:2379", "a:2379": "http://a:2379", " https://a:2379/ ": "https://a:2379",
		"http://[::1]:2379//": "http://[::1]:2379",
		"a:1,, b:2":           "http://a:1 http://b:2", "unix:///run/etcd": "unix:/run/etcd",
		"unix:/run/etcd": "unix:/run/etcd",
	} {
		got, err := cluster.Endpoints(strings.Split(given, ","))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%q: %q, %v; want %q", given, got, err, want)
		}
	}
	for given, names := range map[string]string{
		"": "--etcd", "http://a": "2379", "http://a:2379/v3": "path", "http://a:1 http://b:2": "comma",
		"unix:etcd": "absolute", "unix:/" + strings.Repeat("x", 103): "103",
		"ftp://a:1": "http", "http://u:p@a:1": "password",
		"http://:2379": "HOST", "http://a:0": "port", "http://a:b": "http", "http://\x1b[2J:1": "--etcd",
	} {
		if got, err := cluster.Endpoints([]string{given}); err == nil || !strings.Contains(err.Error(), names) ||
			strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %q, %v; want an error with %q", given, got, err, names)
		}
	}
	if _, err := cluster.Endpoints([]string{"unix:/a", "http://b:1"}); err == nil {
		t.Error("a socket and an address are no endpoints of one cluster")
	}
}

// TestWhyEtcdDoesNotAnswer: the error names the cause, not only that time ran out.
func TestWhyEtcdDoesNotAnswer(t *testing.T) {
	s := etcdtest.StartTCP(t)
	plain := strings.TrimPrefix(s.Endpoint(), "http://")
	page := httptest.NewServer(http.NotFoundHandler())
	defer page.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	_, tlsPort, _ := net.SplitHostPort(tls.Listener.Addr().String())
	var asking sync.WaitGroup // each waits for a deadline
	for endpoint, names := range map[string]string{
		"http://127.0.0.1:1":             "refused",
		"unix:/no/such/etcd.sock":        "no such file",
		page.URL:                         "not etcd's client port",
		"https://" + plain:               "http:// instead",
		"http://127.0.0.1:" + tlsPort:    "https:// instead",
		"http://no-such-host.invalid:23": "no-such-host.invalid",
	} {
		c := dialAt(t, endpoint)
		asking.Go(func() {
			if _, err := c.Read(within(t)); err == nil || !strings.Contains(err.Error(), names) {
				t.Errorf("%s: %v, want an error with %q", endpoint, err, names)
			}
		})
	}
	asking.Wait()
}

// TestNoProxy dials an address that is not loopback by its name: without our options the client would use TestMain's
// proxy.
func TestNoProxy(t *testing.T) {
	s := etcdtest.StartTCP(t)
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(s.Endpoint(), "http://"))
	c := dialAt(t, "http://0.0.0.0:"+port)
	if _, err := c.Read(within(t)); err != nil {
		t.Error(err)
	}
}
