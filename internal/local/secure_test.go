package local_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/allreduce/grpclink"
	"evenweave/internal/cluster"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/proto"
	"evenweave/worker"
)

// TestTrainingOverTLS: a coordinator, two workers and an etcd that all speak TLS train to the bits of a calm run, while
// strangers knock at every port and all certificates are renewed.
func TestTrainingOverTLS(t *testing.T) {
	s := startSecured(t, 1500)
	want := calmRun(t, s.steps)
	s.hire("a", 10*time.Minute)
	s.hire("b", 10*time.Minute, func(c *worker.Config) { c.Faults = true })
	together(t, s.events, 2)
	await(t, s.events, "a step", func(e progress.Step) bool { return e.Step > int(s.steps/3) })
	a, endpoint, pages := s.authority, s.endpoint(), s.pages
	operator := a.over("operator", security.Operator, "test")
	v := records(t, operator, endpoint)
	ports := map[string]string{"etcd": strings.TrimPrefix(endpoint, "https://"), "pages": pages, "page": s.open,
		"coordinator": v.Leader.Address, "a": v.Members[0].Address, "b": v.Members[1].Address}
	knock(t, a, ports)
	others := newAuthority(t, "test")
	for name, address := range ports {
		if name == "etcd" || name == "pages" || name == "page" {
			continue
		}
		for caller, over := range map[string]*security.Transport{
			"another authority's": others.over("x", security.Coordinator, "test"),
			"another job's":       newAuthority(t, "other").over("x", security.Coordinator, "other"),
		} {
			if err := asks(t, over, address); status.Code(err) != codes.Unavailable ||
				strings.Contains(err.Error(), v.Job.UUID) {
				t.Errorf("%s certificate at %s: %v", caller, name, err)
			}
		}
		if err := asks(t, a.over("m", security.Metrics, "test"), address); name != "coordinator" &&
			status.Code(err) != codes.PermissionDenied {
			t.Errorf("metrics at %s: %v", name, err)
		}
	}
	stranger, err := cluster.DialOver(others.over("y", security.Worker, "test"), []string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Read(t.Context()); err == nil {
		t.Error("etcd answers to a worker of another authority")
	}
	_ = stranger.Close()

	for page, role := range map[string]security.Role{"/status": security.Operator, "/metrics": security.Metrics} {
		client := &http.Client{Timeout: deadline, Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: a.over("reader", role, "test").HTTPClient(security.Coordinator)}}
		answer, err := client.Get("https://" + pages + page)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(s.said, answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s is answered to role %s with %s", page, role, answer.Status)
		}
	}

	generation := records(t, operator, endpoint).World.Generation
	steal(t, a.over("thief", security.Worker, "test"), operator, endpoint)
	before := s.reload("a", security.Worker)
	for i := range 2 { // renewed twice, while the steps go on
		s.renewAll(operator, time.Duration(i+2)*time.Hour)
	}
	until(t, "the key before the renewals is refused", func() bool {
		return status.Code(s.asksForState(before, v)) == codes.PermissionDenied
	})
	if v := records(t, operator, endpoint); v.World.Generation == generation {
		t.Error("no world came of the renewed certificates: the ring stands on the old ones")
	}
	if why := s.unplanned(generation); len(why) > 0 {
		t.Errorf("the renewal broke a step: %q", why)
	}
	// A bit flips in one of two states. No majority is left, so both members load the checkpoint, the second from the
	// first: over connections that they made at the start, with the keys of then.
	// One that flips between a fingerprint and an update which replaces its number has done nothing: then another.
	until(t, "a flipped bit is healed", func() bool {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Second) // a few steps
		all, _ := s.events.since(0)
		return slices.ContainsFunc(all, func(e progress.Event) bool {
			w, ok := e.(progress.Warning)
			return ok && strings.HasPrefix(w.Message, "healed: ")
		})
	})
	s.finish(want)
}

// asksForState asks the second member for a state.
func (s *secured) asksForState(as *security.Transport, v cluster.View) error {
	s.t.Helper()
	c, err := grpc.NewClient("passthrough:///"+v.Members[1].Address, as.Options(security.Worker)...)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(s.t.Context(), deadline)
	defer stop()
	stream, err := proto.NewMemberClient(c).State(ctx, &proto.StateRequest{Job: v.Job.UUID, Step: 1})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// renewAll renews the coordinator's and all workers' certificates, and waits until each worker has its new key alone
// in its record and in the world.
func (s *secured) renewAll(operator *security.Transport, life time.Duration) {
	s.t.Helper()
	before := map[string][]string{}
	for _, m := range records(s.t, operator, s.endpoint()).Members {
		before[m.ID] = m.Keys
	}
	renew(s.t, s.authority, "coordinator", security.Coordinator, life)
	for id := range s.workers {
		renew(s.t, s.authority, id, security.Worker, life)
	}
	s.settled(operator, before, time.Now().Add(life-30*time.Minute))
}

// settled waits until all processes use certificates that are valid until a time, and each worker has a key alone in
// its record and in the world that it had not before.
func (s *secured) settled(operator *security.Transport, before map[string][]string, valid time.Time) {
	s.t.Helper()
	until(s.t, "renewed files are taken", func() bool {
		for _, over := range s.over {
			if over.Keys().NotAfter().Before(valid) {
				return false
			}
		}
		return !s.lead.Keys().NotAfter().Before(valid)
	})
	until(s.t, "each worker has its new key alone", func() bool {
		v := records(s.t, operator, s.endpoint())
		renewed := len(v.Members) == len(s.workers)
		for _, m := range v.Members {
			renewed = renewed && len(m.Keys) == 1 && !slices.Equal(m.Keys, before[m.ID]) &&
				slices.Equal(m.Keys, v.World.Keys[m.ID])
		}
		return renewed
	})
}

// steal uses a worker's certificate and etcd: neither makes a world, nor the end of the job, and the coordinator writes
// its records again.
func steal(t *testing.T, thief, operator *security.Transport, endpoint string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(thief.Credentials(security.Etcd))}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before := records(t, operator, endpoint)
	impersonate(t, thief, before)
	if _, err := thief.Seal("world", 1<<50, []byte("{}")); err == nil {
		t.Error("a worker's certificate seals a world")
	}
	forged := map[string]string{
		"world": fmt.Sprintf(`{"job":%q,"generation":%d,"since":1,"peers":[],"reason":"stolen"}`, before.Job.UUID,
			before.World.Generation+1),
		"done": fmt.Sprintf(`{"job":%q,"complete":true}`, before.Job.UUID),
		"job":  `{"uuid":"stolen"}`,
	}
	for key, value := range forged {
		put, err := c.Put(t.Context(), "/evenweave/test/"+key, value)
		if err != nil {
			t.Fatal(err)
		}
		within := time.After(deadline)
		for mended := false; !mended; {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-within:
				t.Fatalf("the stolen record %s stands", key)
			}
			r, err := c.Get(t.Context(), "/evenweave/test/"+key)
			if err != nil {
				t.Fatal(err)
			}
			mended = len(r.Kvs) == 0 || r.Kvs[0].ModRevision > put.Header.Revision
		}
	}
	if after := records(t, operator, endpoint); after.Job.UUID != before.Job.UUID || after.Done != nil ||
		after.World.Generation != before.World.Generation {
		t.Errorf("the records are %+v, before %+v", after, before)
	}
}

// impersonate claims to be a member with another worker's certificate: the key in the record is another.
func impersonate(t *testing.T, thief *security.Transport, v cluster.View) {
	t.Helper()
	w := v.World
	from, to := w.Peers[0], w.Peers[1]
	ctx, stop := context.WithTimeout(t.Context(), deadline)
	defer stop()
	dialer := grpclink.Dialer{Connect: thief.Dial, Refused: security.Refused,
		Credentials: thief.Credentials(security.Worker)}
	_, err := dialer.Dial(ctx, to.Address, grpclink.Hello{Job: w.Job, Generation: w.Generation, From: from.ID,
		To:       to.ID,
		FromRank: 0, ToRank: 1, World: w.Record})
	if err == nil || !strings.Contains(err.Error(), "the key that is registered") {
		t.Errorf("a ring under another member's name: %v", err)
	}
	forged := fmt.Sprintf(`{"job":%q,"generation":%d,"peers":[{"id":%q,"address":%q},{"id":%q,"address":%q}]}`, w.Job,
		w.Generation+1, from.ID, from.Address, to.ID, to.Address)
	_, err = dialer.Dial(ctx, to.Address, grpclink.Hello{Job: w.Job, Generation: w.Generation + 1, From: from.ID,
		To: to.ID, FromRank: 0, ToRank: 1, World: []byte(forged)})
	if err == nil || !strings.Contains(err.Error(), "no seal") {
		t.Errorf("a world of its own: %v", err)
	}
	for _, at := range []struct {
		role    security.Role
		address string
		ask     func(c *grpc.ClientConn) (interface{ Recv() (*proto.Block, error) }, error)
	}{
		{security.Worker, to.Address, func(c *grpc.ClientConn) (interface{ Recv() (*proto.Block, error) }, error) {
			return proto.NewMemberClient(c).State(ctx, &proto.StateRequest{Job: w.Job, Step: 1})
		}},
		{security.Worker, to.Address, func(c *grpc.ClientConn) (interface{ Recv() (*proto.Block, error) }, error) {
			_, err := proto.NewMemberClient(c).Probe(ctx, &proto.ProbeRequest{Job: w.Job})
			return nil, err
		}},
		{security.Coordinator, v.Leader.Address, func(c *grpc.ClientConn) (interface{ Recv() (*proto.Block, error) },
			error) {
			return proto.NewCoordinatorClient(c).Checkpoint(ctx, &proto.CheckpointRequest{Job: w.Job})
		}},
	} {
		c, err := grpc.NewClient("passthrough:///"+at.address, thief.Options(at.role)...)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := at.ask(c)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "registered") {
			t.Errorf("a worker that is not registered asks %s: %v", at.role, err)
		}
		_ = c.Close()
	}
}

func asks(t *testing.T, over *security.Transport, address string) error {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, over.Options(security.Worker)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, stop := context.WithTimeout(t.Context(), deadline)
	defer stop()
	_, err = proto.NewMemberClient(c).Probe(ctx, &proto.ProbeRequest{})
	return err
}
