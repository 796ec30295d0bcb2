package local_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"evenweave/allreduce"
	"evenweave/allreduce/grpclink"
	"evenweave/internal/cluster"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/proto"
	"evenweave/worker"
)

// processVariable makes a process of this test a worker, which processConfig describes.
const processVariable = "EVENWEAVE_TEST_PROCESS"

type processConfig struct {
	Endpoint, ID, Listen, Advertise string
	Certificates, Released          string // a directory, and the file that lets the last steps go
	Steps                           int64
}

// beWorker is the main function of such a process: a worker with the tiny model, over TLS.
func beWorker(text string) error {
	var c processConfig
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	keys, err := security.Load(security.FilesIn(c.Certificates), security.Identity{Role: security.Worker, Job: "test"})
	if err != nil {
		return err
	}
	released := func() bool { _, err := os.Stat(c.Released); return err == nil }
	pace := gated(func(step int64) {
		if step >= c.Steps/10 && !released() {
			<-time.After(5 * time.Millisecond)
		}
		for step >= c.Steps-3 && !released() {
			<-time.After(5 * time.Millisecond)
		}
	})
	return worker.Serve(context.Background(), worker.Config{Endpoints: []string{c.Endpoint}, Name: "test", ID: c.ID,
		Listen: c.Listen, Advertise: c.Advertise, Over: security.Over(keys), Parallelism: 1, Grace: deadline, TTL: ttl,
		Open: pace, MetricNames: example.Metrics(),
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))}, nil)
}

// process starts a worker as a process of its own, whose output is the cluster's.
func (s *secured) process(c processConfig) (pid int, done <-chan error) {
	s.t.Helper()
	c.Endpoint, c.Steps = s.endpoint(), s.steps
	text, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(s.t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), processVariable+"="+string(text))
	cmd.Stdout, cmd.Stderr = s.said, s.said
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd.Process.Pid, ended
}

// TestTamperedFramesEndGenerations: workers are processes, and between two of them stands a stranger with their key. A
// segment that is sent again, comes too early, is of an earlier step or of another job ends the generation, as a breach
// of the protocol; a member whose record is overwritten is lost, and no more. The weights are those of a calm run, and
// neither refusals nor the processes' arguments and variables give anything away.
func TestTamperedFramesEndGenerations(t *testing.T) {
	s := startSecured(t, 2000)
	want := calmRun(t, s.steps)
	shared := s.authority.over("workers", security.Worker, "test") // stolen: all workers have it
	c := processConfig{Certificates: filepath.Join(s.authority.dir, "workers"),
		Released: filepath.Join(t.TempDir(), "released")}
	first, second := c, c
	first.ID, first.Listen = "first-worker", "127.0.0.1:0"
	second.ID, second.Listen = "second-worker", free(t)
	middle := &tamper{t: t, to: second.Listen, over: shared, lead: s.lead}
	second.Advertise = middle.serve()
	firstPID, firstDone := s.process(first)
	secondPID, secondDone := s.process(second)
	for i, breach := range breaches {
		await(t, s.events, breach.name, func(w progress.World) bool {
			return !w.Planned && strings.Count(strings.Join(s.unplanned(0), "\n"), "(protocol, receive") > i
		})
	}
	for _, breach := range breaches {
		if !strings.Contains(s.said.String(), breach.says) {
			t.Errorf("%s: no worker has said %q", breach.name, breach.says)
		}
	}
	operator := s.authority.over("operator", security.Operator, "test")
	v := records(t, operator, s.endpoint())
	for _, pid := range []int{firstPID, secondPID} {
		s.surroundings(pid)
	}
	s.refusals(v, c.Certificates)
	s.overwrite(v, "second-worker")
	if err := os.WriteFile(c.Released, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended(t, "first", firstDone, nil)
	ended(t, "second", secondDone, nil)
	s.finish(want)
}

// breaches are what the stranger does to the n-th frame of a generation, one a generation.
var breaches = []struct {
	name, says string
	do         func(m *tamper, frame []byte) [][]byte
}{
	{"a segment sent again", "frame number", func(m *tamper, frame []byte) [][]byte {
		return [][]byte{m.before, frame}
	}},
	{"a segment of an earlier step", "sum number", func(m *tamper, frame []byte) [][]byte {
		return [][]byte{m.early}
	}},
	{"a segment of another job", "a job with hash", func(m *tamper, frame []byte) [][]byte {
		return [][]byte{foreign(m.t, frame)}
	}},
	{"two segments in another order", "frame number", func(m *tamper, frame []byte) [][]byte {
		m.held = frame
		return nil
	}},
}

const breachAt = 40 // the frame of a generation; even: the first of its step, in a world of two

// tamper stands before a worker, with a key that the workers share, and a coordinator's for its calls.
type tamper struct {
	t          *testing.T
	to         string
	over, lead *security.Transport

	mu                  sync.Mutex
	breached, frames    int
	before, early, held []byte
}

// serve is where the others reach the worker through it.
func (m *tamper) serve() (address string) {
	l, err := m.over.Listen("127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	rings, err := grpc.NewClient("passthrough:///"+m.to, m.over.Options(security.Worker)...)
	if err != nil {
		m.t.Fatal(err)
	}
	calls, err := grpc.NewClient("passthrough:///"+m.to, m.lead.Options(security.Worker)...)
	if err != nil {
		m.t.Fatal(err)
	}
	server := grpc.NewServer(append(m.over.ServerOptions(), grpc.ForceServerCodecV2(bytesCodec("proto")),
		grpc.UnknownServiceHandler(func(_ any, in grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(in)
			if strings.HasSuffix(method, "/Link") {
				return m.pass(in, rings, method, m.change)
			}
			return m.pass(in, calls, method, func(b []byte) [][]byte { return [][]byte{b} })
		}))...)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	m.t.Cleanup(func() { server.Stop(); <-done; _ = rings.Close(); _ = calls.Close() })
	return l.Addr().String()
}

// pass passes a call on.
func (m *tamper) pass(in grpc.ServerStream, to *grpc.ClientConn, method string, change func([]byte) [][]byte) error {
	ctx, cancel := context.WithCancel(in.Context())
	defer cancel()
	md, _ := metadata.FromIncomingContext(ctx)
	codec := bytesCodec(strings.TrimPrefix(strings.Join(md.Get("content-type"), ""), "application/grpc+"))
	if strings.HasPrefix(string(codec), "application/") {
		codec = "proto"
	}
	out, err := to.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method,
		grpc.ForceCodecV2(codec))
	if err != nil {
		return err
	}
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for {
			var b []byte
			if err := in.RecvMsg(&b); err == io.EOF {
				_ = out.CloseSend()
				return
			} else if err != nil {
				cancel()
				return
			}
			for _, b := range change(b) {
				_ = out.SendMsg(&b)
			}
		}
	})
	head, err := out.Header()
	if err == nil && len(head) > 0 {
		delete(head, "content-type")
		err = in.SendHeader(head)
	}
	for err == nil {
		var b []byte
		if err = out.RecvMsg(&b); err == nil {
			err = in.SendMsg(&b)
		}
	}
	in.SetTrailer(out.Trailer())
	if err == io.EOF {
		return nil
	}
	return err
}

// change is what goes on to the worker in place of a message of the ring.
func (m *tamper) change(b []byte) [][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(b) > 0 && b[0] == '{' { // a Hello
		m.frames, m.held = 0, nil
		return [][]byte{b}
	}
	defer func() { m.before = b }()
	if m.frames++; m.frames == 10 {
		m.early = b
	}
	if m.held != nil {
		two := [][]byte{b, m.held}
		m.held = nil
		return two
	}
	if m.frames-1 == breachAt && m.breached < len(breaches) {
		m.breached++
		return breaches[m.breached-1].do(m, b)
	}
	return [][]byte{b}
}

// bytesCodec passes messages through.
type bytesCodec string

func (c bytesCodec) Name() string { return string(c) }
func (bytesCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}
func (bytesCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// foreign is a frame like this one of a ring of another job.
func foreign(t *testing.T, like []byte) []byte {
	le := binary.LittleEndian
	to := &recorder{first: make(chan []byte, 1), over: make(chan struct{})}
	ring, err := allreduce.New(allreduce.Config{Job: "another", Generation: int64(le.Uint64(like[16:])),
		Rank: int(le.Uint16(like[64:])), Size: 2}, to, to)
	if err != nil {
		t.Error(err)
		return like
	}
	var summing sync.WaitGroup
	summing.Go(func() {
		_ = ring.Sum(t.Context(), int64(le.Uint64(like[32:])), make([]int64, le.Uint64(like[40:])))
	})
	frame := <-to.first
	ring.Abort(errors.New("enough"))
	summing.Wait()
	return frame
}

// recorder is both ends of a ring. It keeps the first frame.
type recorder struct {
	frame []byte
	first chan []byte
	once  sync.Once
	over  chan struct{}
}

func (r *recorder) Buffer(n int) []byte { r.frame = make([]byte, n); return r.frame }
func (r *recorder) Send() error {
	select {
	case r.first <- slices.Clone(r.frame):
	default:
	}
	return nil
}
func (r *recorder) Recv() ([][]byte, error)     { <-r.over; return nil, io.ErrClosedPipe }
func (r *recorder) Wait() error                 { <-r.over; return io.ErrClosedPipe }
func (r *recorder) Abort(error)                 { r.once.Do(func() { close(r.over) }) }
func (r *recorder) Close(context.Context) error { r.Abort(nil); return nil }

// surroundings checks that a process's arguments and variables hold no part of a key.
func (s *secured) surroundings(pid int) {
	s.t.Helper()
	for _, file := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			s.t.Skip("no /proc here: ", err)
		}
		if _, err := s.said.Write(b); err != nil { // keepsSecrets looks there
			s.t.Fatal(err)
		}
	}
}

// refusals checks the replies to callers that have a certificate of this job's and may not call: not the job's UUID, a
// member or a path. A worker that is registered, and in no world, can open no ring, not under another's name either.
func (s *secured) refusals(v cluster.View, certificates string) {
	s.t.Helper()
	extra := s.authority.over("extra", security.Worker, "test")
	client, err := cluster.DialOver(extra, []string{s.endpoint()}, "test")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, leave := context.WithTimeout(s.t.Context(), deadline)
	var registered sync.WaitGroup
	defer func() { leave(); registered.Wait(); _ = client.Close() }()
	registered.Go(func() {
		cluster.NewMembership(client, job.Member{ID: "extra-worker", Job: v.Job.UUID, Address: "127.0.0.1:9",
			Numerics: golden.Hash, Protocol: job.Protocol, Keys: extra.Registered()}, ttl,
			slog.New(slog.DiscardHandler)).Run(ctx)
	})
	until(s.t, "another worker is registered", func() bool {
		v, err := client.Read(ctx)
		_, has := v.Member("extra-worker")
		return err == nil && has
	})
	replies := map[string]error{}
	for i, to := range v.World.Peers {
		if to.ID != "first-worker" { // the stranger answers in the name of the other
			continue
		}
		dialer := grpclink.Dialer{Connect: extra.Dial, Refused: security.Refused,
			Credentials: extra.Credentials(security.Worker)}
		left := v.World.Peers[(i+1)%v.World.Size()].ID
		for _, from := range []string{"extra-worker", left} {
			_, err := dialer.Dial(ctx, to.Address, grpclink.Hello{Job: v.Job.UUID, Generation: v.World.Generation,
				From: from, To: to.ID, FromRank: (i + 1) % v.World.Size(), ToRank: i, World: v.World.Record})
			replies[fmt.Sprintf("a ring to rank %d as %s", i, from)] = reply(err)
		}
		for role, over := range map[security.Role]*security.Transport{security.Operator: s.authority.over("o",
			security.Operator, "test"), security.Metrics: s.authority.over("m", security.Metrics, "test")} {
			c, err := grpc.NewClient("passthrough:///"+to.Address, over.Options(security.Worker)...)
			if err != nil {
				s.t.Fatal(err)
			}
			_, err = proto.NewMemberClient(c).Acknowledge(ctx,
				&proto.AcknowledgeRequest{Job: v.Job.UUID, Step: 1 << 62})
			replies[fmt.Sprintf("an acknowledgement to rank %d by %s", i, role)] = err
			_ = c.Close()
		}
	}
	for call, err := range replies {
		if err == nil {
			s.t.Errorf("%s is not refused", call)
			continue
		}
		for _, secret := range []string{v.Job.UUID, "first-worker", "second-worker", certificates, s.dir} {
			if strings.Contains(err.Error(), secret) {
				s.t.Errorf("%s: the refusal %q gives %s away", call, err, secret)
			}
		}
	}
}

// reply is what the other end of a ring has said.
func reply(err error) error {
	if said, ok := status.FromError(errors.Unwrap(errors.Unwrap(err))); ok {
		return said.Err()
	}
	return err
}

// overwrite puts the key of a worker that no world names into a member's record. That makes it the member, which it
// could be under a name of its own, and the others train on.
func (s *secured) overwrite(v cluster.View, id string) {
	s.t.Helper()
	thief := s.authority.over("thief", security.Worker, "test")
	etcd, err := clientv3.New(clientv3.Config{Endpoints: []string{s.endpoint()}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(thief.Credentials(security.Etcd))}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer etcd.Close()
	mine, _ := v.Member(id)
	mine.Keys = thief.Registered()
	text, err := json.Marshal(mine)
	if err == nil {
		_, err = etcd.Put(s.t.Context(), "/evenweave/test/members/"+id, string(text))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.stepOn("steps with an overwritten record", 5)
}
