package cli

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/job"
	"evenweave/proto"
)

// Members that accept and never answer, as stopped processes do, do not hide the others.
func TestSilentMembersDoNotHideTheOthers(t *testing.T) {
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	answers := listen()
	server := grpc.NewServer()
	proto.RegisterMemberServer(server, proto.UnimplementedMemberServer{})
	go func() { _ = server.Serve(answers) }()
	t.Cleanup(server.Stop)
	v := cluster.View{Members: []job.Member{
		{ID: "silent1", Address: listen().Addr().String()}, {ID: "silent2", Address: listen().Addr().String()},
		{ID: "awake", Address: answers.Addr().String()},
	}}
	c, err := cluster.Dial([]string{"127.0.0.1:1"}, "test") // is not asked
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func() []answer[*proto.BlameReply] {
		return askAll(t.Context(), c, v, func(ctx context.Context, m proto.MemberClient,
			_ ...grpc.CallOption) (*proto.BlameReply, error) {
			return m.Blame(ctx, &proto.BlameRequest{})
		})
	}
	got := ask()
	for began := time.Now(); status.Code(got[2].err) == codes.DeadlineExceeded && time.Since(began) < deadline; {
		got = ask() // a busy machine may need more than the two seconds that a person waits for
	}
	if len(got) != 3 || got[0].err == nil || got[1].err == nil || got[2].id != "awake" ||
		status.Code(got[2].err) != codes.Unimplemented {
		t.Errorf("%+v; want two that do not answer, and one that says what it cannot do", got)
	}
}

// In Compose and Kubernetes no process reads the wanted worker count: setting it must not look like success.
func TestScaleNeedsALocalRun(t *testing.T) {
	endpoint := etcdtest.Start(t, "").Endpoint()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	c, err := cluster.Dial([]string{endpoint}, "evenweave")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for { // etcd may need seconds
		if _, err := c.Read(ctx); err == nil {
			break
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	scale := func() (int, string) {
		cmd := command(t, "scale", "3", "--etcd", endpoint)
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out)
	}
	if code, out := scale(); code != exitFailed || !strings.Contains(out, "kubectl scale") {
		t.Errorf("without members: exit code %d:\n%s", code, out)
	}
	if _, err := c.SetWorkers(ctx, 2); err != nil { // as `evenweave train` does
		t.Fatal(err)
	}
	if code, out := scale(); code != exitDone {
		t.Errorf("exit code %d:\n%s", code, out)
	}
	if v, err := c.Read(ctx); err != nil || v.Workers != 3 {
		t.Errorf("%d workers are wanted (%v), want 3", v.Workers, err)
	}
}
