package local_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/progress"
	"evenweave/internal/security"
)

// TestCertificatesChangeInBadTimes: a certificate expires while its holder trains; the authority is replaced, and etcd
// started again for that; a worker is killed while all renew, and another coordinator leads with a certificate of its
// own. The weights are those of a calm run.
func TestCertificatesChangeInBadTimes(t *testing.T) {
	s := startSecured(t, 1500)
	want := calmRun(t, s.steps)
	s.hire("a", 10*time.Minute)
	s.hire("b", time.Hour)
	operator := s.authority.over("operator", security.Operator, "test")
	together(t, s.events, 2)
	s.stepOn("steps", 5)
	generation := records(t, operator, s.endpoint()).World.Generation

	s.skipped.Store(int64(11 * time.Minute)) // by every process's clock the certificate of a has expired
	s.stepOn("steps with an expired certificate", 5)
	if now := records(t, operator, s.endpoint()).World.Generation; now != generation {
		t.Errorf("an expired certificate made world %d of %d: it counts in new connections alone", now, generation)
	}
	before := s.keys(operator)
	s.exchange(s.authority, "a", security.Worker, nil)
	s.settled(operator, map[string][]string{"a": before["a"]}, time.Now().Add(30*time.Minute))
	s.stepOn("steps with the renewed one", 5)

	second := newAuthority(t, "test")
	processes := map[string]security.Role{"etcd": security.Etcd, "coordinator": security.Coordinator,
		"a": security.Worker, "b": security.Worker, "operator": security.Operator}
	old, fresh := bundleOf(t, s.authority), bundleOf(t, second)
	both := slices.Concat(fresh, old)
	for process := range processes {
		s.write(security.FilesIn(filepath.Join(s.authority.dir, process)).CA, both)
	}
	s.restartEtcd() // it reads its bundle then alone
	s.stepOn("steps without etcd", 5)
	before = s.keys(operator)
	for process, role := range processes {
		s.exchange(second, process, role, both)
	}
	operator = s.reload("operator", security.Operator)
	s.settled(operator, before, time.Now().Add(30*time.Minute))
	for process := range processes {
		s.write(security.FilesIn(filepath.Join(s.authority.dir, process)).CA, fresh)
	}
	s.restartEtcd()
	operator = s.reload("operator", security.Operator)
	s.stepOn("steps by the second authority", 5)
	outdated := s.load("outdated", security.Operator, "test", time.Hour)
	until(t, "the authority before is trusted no more", func() bool {
		return status.Code(asks(t, outdated,
			records(t, operator, s.endpoint()).Members[0].Address)) == codes.Unavailable
	})
	if why := s.unplanned(generation); len(why) > 0 {
		t.Errorf("renewals broke a step: %q", why)
	}

	before = s.keys(operator)
	for process, role := range processes {
		s.exchange(second, process, role, fresh)
	}
	s.workers["b"].kill()
	ended(t, "b", s.workers["b"].done, context.Canceled)
	delete(s.workers, "b")
	delete(s.over, "b")
	s.authority.Authority = second.Authority
	s.hire("c", time.Hour)
	s.settled(operator, before, time.Now().Add(30*time.Minute))
	s.stepOn("steps after a worker was killed in the middle of a renewal", 5)
	s.resign()
	ended(t, "the first coordinator", s.done, nil)
	s.coordinate("another-coordinator")
	await(t, s.events, "steps of the second coordinator", anyOf[progress.Step])
	s.finish(want)
}

// bundleOf are the certificates of an authority, as its processes trust them.
func bundleOf(t *testing.T, a authority) []byte {
	t.Helper()
	b, err := os.ReadFile(a.issue("any", security.Metrics, time.Hour).CA)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *secured) write(name string, content []byte) {
	s.t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// exchange gives a process a key, a certificate of an authority, and a bundle unless that is to stay.
func (s *secured) exchange(by authority, process string, role security.Role, bundle []byte) {
	s.t.Helper()
	by.dir = s.t.TempDir()
	fresh, to := by.issue("new", role, time.Hour), security.FilesIn(filepath.Join(s.authority.dir, process))
	if bundle != nil {
		s.write(to.CA, bundle)
	}
	copyFile(s.t, fresh.Key, to.Key)
	copyFile(s.t, fresh.Cert, to.Cert)
}

// restartEtcd has it read its files again.
func (s *secured) restartEtcd() {
	s.t.Helper()
	s.etcd.Halt()
	s.etcd.Resume()
}

// reload is the transport of what holds the files of a process now.
func (s *secured) reload(process string, role security.Role) *security.Transport {
	s.t.Helper()
	keys, err := security.Load(security.FilesIn(filepath.Join(s.authority.dir, process)), security.Identity{Role: role,
		Job: "test"})
	if err != nil {
		s.t.Fatal(err)
	}
	return security.Over(keys)
}
