package local_test

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"evenweave/internal/progress"
	"evenweave/internal/security"
)

// TestRecordsAreSpoiltWhileNoCoordinatorRuns: the next one names a world or an end that it cannot use, writes it again,
// and the steps go on in the next generation. Without the job's record it says what to do, and leads once that is done.
func TestRecordsAreSpoiltWhileNoCoordinatorRuns(t *testing.T) {
	const steps = 600
	want := calmRun(t, steps)
	for name, c := range map[string]struct{ key, value string }{
		"a stranger's world": {"world", `{"job":"u","generation":9,"peers":[]}`},
		"no world":           {"world", ""},
		"a stranger's end":   {"done", `{"job":"u","complete":true}`},
		"no JSON as the job": {"job", "{x"},
		"a stranger's job":   {"job", `{"uuid":"u"}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := startSecured(t, steps)
			s.hire("a", time.Hour)
			s.hire("b", time.Hour)
			world := await(t, s.events, "a world of two", func(w progress.World) bool { return w.Size == 2 })
			together(t, s.events, 2)
			await(t, s.events, "a step", func(e progress.Step) bool { return e.Step > steps/3 })
			s.resign()
			ended(t, "the first coordinator", s.done, nil)

			etcd := s.raw()
			before, err := etcd.Get(t.Context(), "/evenweave/test/job")
			if err != nil || len(before.Kvs) != 1 {
				t.Fatal(before, err)
			}
			right := string(before.Kvs[0].Value)
			key := "/evenweave/test/" + c.key
			write := func(value string) {
				if _, err := etcd.Put(t.Context(), key, value); err != nil {
					t.Fatal(err)
				}
			}
			if write(c.value); c.value == "" {
				_, err = etcd.Delete(t.Context(), key)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.coordinate("second")
			switch {
			case name == "a stranger's job":
				ended(t, "the second coordinator", s.done, security.ErrNotSealed)
				write(right)
				s.coordinate("third")
			case c.key == "job":
				until(t, "the job's record is named", func() bool {
					return contains(s.said.String(), "leadership lost: campaigning again", key+": ", "etcdctl")
				})
				write(right)
			case c.value != "":
				await(t, s.events, "a warning", func(w progress.Warning) bool {
					return strings.HasPrefix(w.Message, "etcd key "+key+" could not be used, and is written again: ")
				})
			}
			if c.key == "world" {
				await(t, s.events, "a world after it",
					func(w progress.World) bool { return w.Size > 0 && w.Generation > world.Generation })
			}
			await(t, s.events, "a step of the next coordinator", anyOf[progress.Step])
			s.finish(want)
		})
	}
}

// raw is a client of etcd without our checks.
func (s *secured) raw() *clientv3.Client {
	s.t.Helper()
	over := s.authority.over("raw", security.Worker, "test")
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint()}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(over.Credentials(security.Etcd))}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}
