package local_test

import (
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evenweave/coordinator"
	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/local"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/worker"
)

// authority makes the certificates of a job in a directory, one set for each process.
type authority struct {
	*security.Authority
	dir     string
	t       *testing.T
	skipped *atomic.Int64 // nanoseconds that the clock of its processes is ahead
}

func (a authority) clock() time.Time { return time.Now().Add(time.Duration(a.skipped.Load())) }

func newAuthority(t *testing.T, job string) authority {
	t.Helper()
	dir := t.TempDir()
	a, _, err := security.OpenAuthority(filepath.Join(dir, "ca"), job, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority{a, dir, t, new(atomic.Int64)}
}

// issue makes the files of a process, or makes new ones.
func (a authority) issue(process string, role security.Role, life time.Duration) security.Files {
	a.t.Helper()
	dir := filepath.Join(a.dir, process)
	if _, err := a.Issue(dir, role, life); err != nil {
		a.t.Fatal(err)
	}
	return security.FilesIn(dir)
}

// over is the transport of a process of a role.
func (a authority) over(process string, role security.Role, job string) *security.Transport {
	a.t.Helper()
	return a.load(process, role, job, 10*time.Minute)
}

// load is over for a certificate of another life.
func (a authority) load(process string, role security.Role, job string, life time.Duration) *security.Transport {
	a.t.Helper()
	keys, err := security.Load(a.issue(process, role, life), security.Identity{Role: role, Job: job})
	if err != nil {
		a.t.Fatal(err)
	}
	keys.Every, keys.Now = 50*time.Millisecond, a.clock
	return security.Over(keys)
}

// free is an address that was free a moment ago, and that no outgoing connection takes.
func free(t *testing.T) string {
	t.Helper()
	address, err := local.PageAddress("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return address
}

// secured is a cluster whose processes all talk over TLS: an etcd, a coordinator and workers.
type secured struct {
	authority
	steps      int64
	pace       time.Duration // of a micro-batch past a third of the steps
	changes    []func(*coordinator.Config)
	etcd       *etcdtest.Server
	dir, pages string
	open       string // where the coordinator is asked without TLS: its page, and probes
	said       *said  // by all processes, in their logs
	events     *events
	lead       *security.Transport
	resign     func()
	done       chan error // of the coordinator
	over       map[string]*security.Transport
	workers    map[string]*hired
	released   chan struct{} // the job ends when this is closed
}

// startSecured starts a cluster without workers.
func startSecured(t *testing.T, steps int64, changes ...func(*coordinator.Config)) *secured {
	t.Helper()
	a := newAuthority(t, "test")
	s := &secured{authority: a, steps: steps, pace: 20 * time.Millisecond, changes: changes,
		etcd: etcdtest.StartTLS(t, a.issue("etcd", security.Etcd, time.Hour)),
		dir:  t.TempDir(), said: new(said), over: map[string]*security.Transport{}, workers: map[string]*hired{},
		released: make(chan struct{})}
	s.coordinate("coordinator")
	return s
}

func (s *secured) endpoint() string { return s.etcd.Endpoint() }

// coordinate starts a coordinator with a certificate of its own.
func (s *secured) coordinate(process string) {
	s.t.Helper()
	s.pages, s.open = free(s.t), free(s.t)
	s.lead = s.load(process, security.Coordinator, "test", time.Hour)
	secure := func(c *coordinator.Config) {
		c.Over, c.HTTPS, c.HTTP, c.Limits.Expect, c.Log = s.lead, s.pages, s.open, 2, s.said.log()
	}
	l := startCoordinator(s.t, s.endpoint(), s.dir, spec(s.steps), append(s.changes, secure)...)
	s.events, s.resign, s.done = l.events, l.resign, l.done
	s.t.Cleanup(l.resign)
}

// hire starts a worker with a certificate of its own that is valid for a time. Past a third of the steps it is slow;
// near the end it is slower, so that steps are left on a busy machine; before the last it waits until the test releases
// it.
func (s *secured) hire(id string, life time.Duration, changes ...func(*worker.Config)) {
	s.t.Helper()
	over := s.authority.load(id, security.Worker, "test", life)
	s.over[id] = over
	s.workers[id] = hire(s.endpoint(), id, false, gated(s.gate), append(changes,
		func(c *worker.Config) { c.Over, c.Log = over, s.said.log() })...)
}

// gate is where its workers wait before each micro-batch.
func (s *secured) gate(step int64) {
	pause := s.pace
	if step >= s.steps-100 {
		pause = 2 * time.Second
	}
	if step >= s.steps/3 {
		select {
		case <-s.released:
		case <-time.After(pause):
		}
	}
	if step >= s.steps-3 {
		<-s.released
	}
}

// said is text that processes write.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

// String is the text up to now.
func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *said) log() *slog.Logger {
	return slog.New(slog.NewTextHandler(s, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// keepsSecrets checks that no process has written a part of a key.
func (s *secured) keepsSecrets() {
	s.t.Helper()
	s.said.mu.Lock()
	defer s.said.mu.Unlock()
	text, keys := s.said.text.String(), 0
	_ = filepath.WalkDir(s.authority.dir, func(name string, _ fs.DirEntry, _ error) error {
		if filepath.Base(name) != "key.pem" {
			return nil
		}
		b, err := os.ReadFile(name)
		if err != nil {
			s.t.Fatal(err)
		}
		keys++
		for line := range strings.Lines(string(b)) {
			if strings.Contains(text, strings.TrimSpace(line)) {
				s.t.Errorf("%s has been written to a log or a page", name)
			}
		}
		return nil
	})
	if keys < 3 || len(text) < 100 {
		s.t.Errorf("%d keys, %d bytes of text", keys, len(text))
	}
}

// finish lets the job end, and compares it with a calm run.
func (s *secured) finish(want progress.Done) {
	s.t.Helper()
	close(s.released)
	ended(s.t, "coordinator", s.done, nil)
	for _, w := range s.workers {
		ended(s.t, "worker", w.done, nil)
	}
	if d := await(s.t, s.events, "the end", anyOf[progress.Done]); d.Fingerprint != want.Fingerprint || !d.Complete {
		s.t.Errorf("ended with %+v, a calm run with %+v", d, want)
	}
	wholeCurve(s.t, s.dir, int(s.steps))
	s.keepsSecrets()
}

// stepOn waits for some steps more.
func (s *secured) stepOn(what string, steps int) {
	s.t.Helper()
	from := s.events.lastStep()
	await(s.t, s.events, what, func(e progress.Step) bool { return e.Step >= from+steps })
}

// unplanned are the worlds since a generation that were not planned.
func (s *secured) unplanned(since int64) (reasons []string) {
	all, _ := s.events.since(0)
	for _, e := range all {
		if w, ok := e.(progress.World); ok && int64(w.Generation) > since && !w.Planned {
			reasons = append(reasons, w.Reason)
		}
	}
	return reasons
}

// renew makes new files of a process, as `certs init` does when it is time.
func renew(t *testing.T, a authority, process string, role security.Role, life time.Duration) {
	t.Helper()
	old := a.dir
	a.dir = t.TempDir()
	fresh := a.issue("new", role, life)
	to := security.FilesIn(filepath.Join(old, process))
	for from, name := range map[string]string{fresh.CA: to.CA, fresh.Cert: to.Cert, fresh.Key: to.Key} {
		copyFile(t, from, name)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// records are those of the job, once it has a world and a leader.
func records(t *testing.T, over *security.Transport, endpoint string) (v cluster.View) {
	t.Helper()
	c, err := cluster.DialOver(over, []string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "the job's records", func() bool {
		v, err = c.Read(t.Context())
		return err == nil && v.World != nil && v.Leader != nil && len(v.Members) > 0
	})
	return v
}

// keys are those that the members have registered.
func (s *secured) keys(operator *security.Transport) map[string][]string {
	s.t.Helper()
	all := map[string][]string{}
	for _, m := range records(s.t, operator, s.endpoint()).Members {
		all[m.ID] = m.Keys
	}
	return all
}
