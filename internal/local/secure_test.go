package local_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	"evenweave/coordinator"
	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/example"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/proto"
	"evenweave/worker"
)

// authority makes the certificates of a job in a directory, one set for each process.
type authority struct {
	*security.Authority
	dir string
	t   *testing.T
}

func newAuthority(t *testing.T, job string) authority {
	t.Helper()
	dir := t.TempDir()
	a, _, err := security.OpenAuthority(filepath.Join(dir, "ca"), job, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority{a, dir, t}
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
	keys, err := security.Load(a.issue(process, role, 10*time.Minute), security.Identity{Role: role, Job: job})
	if err != nil {
		a.t.Fatal(err)
	}
	return security.Over(keys)
}

// free is an address that was free a moment ago.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestTrainingOverTLS: a coordinator, two workers and an etcd that all speak TLS train to the bits of a calm run, while
// strangers knock at every port and all certificates are renewed.
func TestTrainingOverTLS(t *testing.T) {
	const steps = 1500
	want := calmRun(t, steps)
	a := newAuthority(t, "test")
	endpoint := etcdtest.StartTLS(t, a.issue("etcd", security.Etcd, time.Hour)).Endpoint()
	events := newEvents()
	pages := free(t)
	lead := a.over("coordinator", security.Coordinator, "test")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	dir := t.TempDir()
	go func() {
		defer close(events.over)
		done <- coordinator.Serve(ctx, coordinator.Config{
			Endpoints: []string{endpoint}, Over: lead, Name: "test", MetricNames: example.Metrics(),
			Listen: "127.0.0.1:0", HTTPS: pages, Dir: dir,
			Spec: spec(steps), Backend: "none", CheckpointEvery: 50, Keep: 3, Evaluate: true, Started: time.Now(),
			Limits: policy.Limits{Min: 2, Max: 8, TTL: ttl}, Model: tinyTask{example.NewSoftmax()},
			Test: example.Points{N: 1}, HeldOut: example.Points{N: 1}, Observer: events,
			Log: slog.New(slog.DiscardHandler),
		}, nil)
	}()
	released := make(chan struct{})
	slow := gated(func(step int64) { // slower near the end: steps are left when the renewed files are read
		pause := 20 * time.Millisecond
		if step >= steps-100 {
			pause = 2 * time.Second
		}
		if step >= steps/3 {
			select {
			case <-released:
			case <-time.After(pause):
			}
		}
		if step >= steps-3 {
			<-released
		}
	})
	var transports []*security.Transport
	var workers []*hired
	for _, id := range []string{"a", "b"} {
		over := a.over(id, security.Worker, "test")
		transports = append(transports, over)
		workers = append(workers, hire(endpoint, id, false, slow, func(c *worker.Config) {
			c.Over, c.Faults = over, id == "b"
		}))
	}
	await(t, events, "a step", func(s progress.Step) bool { return s.Step > steps/3 })
	operator := a.over("operator", security.Operator, "test")
	v := records(t, operator, endpoint)
	ports := map[string]string{"etcd": strings.TrimPrefix(endpoint, "https://"), "pages": pages,
		"coordinator": v.Leader.Address, "a": v.Members[0].Address, "b": v.Members[1].Address}
	knock(t, ports)
	others := newAuthority(t, "test")
	for name, address := range ports {
		if name == "etcd" || name == "pages" {
			continue
		}
		for caller, over := range map[string]*security.Transport{
			"another authority's": others.over("x", security.Coordinator, "test"),
			"another job's":       newAuthority(t, "other").over("x", security.Coordinator, "other"),
		} {
			if err := asks(t, over, address); status.Code(err) != codes.Unavailable {
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
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s is answered to role %s with %s", page, role, answer.Status)
		}
	}

	generation := records(t, operator, endpoint).World.Generation
	steal(t, a.over("thief", security.Worker, "test"), operator, endpoint)
	for i := range 2 { // renewed twice, while the steps go on
		life := time.Duration(i+1) * time.Hour
		for process, role := range map[string]security.Role{"a": security.Worker, "b": security.Worker,
			"coordinator": security.Coordinator} {
			renew(t, a, process, role, life)
		}
		before := map[string][]string{}
		for _, m := range records(t, operator, endpoint).Members {
			before[m.ID] = m.Keys
		}
		for _, over := range append(transports, lead) {
			within := time.After(deadline)
			for until := time.Now().Add(life - time.Minute); over.Keys().NotAfter().Before(until); {
				select {
				case <-time.After(50 * time.Millisecond):
				case <-within:
					t.Fatal("renewed files are not taken")
				}
			}
		}
		within := time.After(deadline)
		for renewed := false; !renewed; { // each has its new key alone in the record, and in the world
			select {
			case <-time.After(50 * time.Millisecond):
			case <-within:
				t.Fatalf("the keys are %+v in a world with %v", v.Members, v.World.Keys)
			}
			v = records(t, operator, endpoint)
			renewed = true
			for _, m := range v.Members {
				renewed = renewed && len(m.Keys) == 1 && !slices.Equal(m.Keys, before[m.ID]) &&
					slices.Equal(m.Keys, v.World.Keys[m.ID])
			}
		}
	}
	if v.World.Generation == generation {
		t.Error("no world came of the renewed certificates: the ring stands on the old ones")
	}
	renewed := v.World.Generation
	// A bit flips in one of two states. No majority is left, so both members load the checkpoint, the second from the
	// first: over connections that they made at the start, with the keys of then.
	if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	await(t, events, "the flipped bit is healed", func(w progress.Warning) bool {
		return strings.HasPrefix(w.Message, "healed: ")
	})
	close(released)
	ended(t, "coordinator", done, nil)
	for _, w := range workers {
		ended(t, "worker", w.done, nil)
	}
	if d := await(t, events, "the end", anyOf[progress.Done]); d.Fingerprint != want.Fingerprint || !d.Complete {
		t.Errorf("ended with %+v, a calm run with %+v", d, want)
	}
	wholeCurve(t, dir, steps)
	for _, e := range events.all {
		if w, ok := e.(progress.World); ok && int64(w.Generation) > generation && int64(w.Generation) <= renewed &&
			!w.Planned {
			t.Errorf("the renewal broke a step: %+v", w)
		}
	}
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

func records(t *testing.T, over *security.Transport, endpoint string) cluster.View {
	t.Helper()
	c, err := cluster.DialOver(over, []string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	v, err := c.Read(t.Context())
	if err != nil || v.World == nil || v.Leader == nil || len(v.Members) != 2 {
		t.Fatalf("%+v, %v", v, err)
	}
	return v
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

// knock tries plain text, no certificate and TLS 1.2 at each port: no answer but a refusal comes.
func knock(t *testing.T, ports map[string]string) {
	t.Helper()
	for name, address := range ports {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(deadline))
		_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
		got, _ := io.ReadAll(io.LimitReader(c, 1<<10))
		if text := string(got); strings.Contains(text, "\x00\x00") && len(text) > 100 {
			t.Errorf("%s answers plain text with %q", name, text)
		}
		_ = c.Close()
		for caller, config := range map[string]*tls.Config{
			"no certificate": {InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}},
			"TLS 1.2":        {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12},
		} {
			client := &http.Client{Timeout: deadline, Transport: &http.Transport{TLSClientConfig: config,
				DisableKeepAlives: true, ForceAttemptHTTP2: true}}
			for _, page := range []string{"/status", "/v3/kv/range", "/metrics", "/health"} {
				answer, err := client.Get("https://" + address + page)
				if err != nil {
					continue
				}
				_ = answer.Body.Close()
				if answer.StatusCode < 400 {
					t.Errorf("%s at %s%s: %s", caller, name, page, answer.Status)
				}
			}
		}
	}
}
