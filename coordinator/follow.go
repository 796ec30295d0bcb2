package coordinator

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/proto"
)

const (
	redial      = 20 * time.Millisecond
	refollow    = 100 * time.Millisecond
	refollowMax = 2 * time.Second
	mostProbes  = 4 // in a row, while this process is too starved to rate an answer
)

// followed is what the streams from the members bring to the term's loop.
type followed struct {
	member, address string
	status          *proto.Status // nil: the stream ended
	invalid         error         // why a status was dropped
	taken           func()        // called when the loop has taken it
}

// maxQueuedStatuses of one member wait for the term's loop.
const maxQueuedStatuses = 4

// follow passes on a member's status until ctx ends; the caller owns the goroutine.
func (t *term) follow(ctx context.Context, j job.Job, member, address string, after int64) {
	wait := refollow
	queue := make(chan struct{}, maxQueuedStatuses)
	for ctx.Err() == nil {
		n, _ := t.stream(ctx, j, member, address, &after, queue)
		if ctx.Err() != nil {
			return
		}
		if n > 0 {
			wait = refollow
			t.send(ctx, followed{member: member, address: address})
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, refollowMax)
	}
}

func (t *term) stream(ctx context.Context, j job.Job, member, address string, after *int64, queue chan struct{}) (n int,
	err error) {
	conn, err := t.c.pool.Dial(address)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := proto.NewMemberClient(conn).Follow(ctx, &proto.FollowRequest{Job: t.uuid, AfterStep: *after},
		grpc.MaxCallRecvMsgSize(maxStatus))
	if err != nil {
		return 0, err
	}
	for {
		s, err := stream.Recv()
		if err != nil {
			return n, err
		}
		n++
		select {
		case queue <- struct{}{}:
		case <-ctx.Done():
			return n, ctx.Err()
		}
		in := followed{member: member, address: address, status: s, taken: func() { <-queue }}
		if in.invalid = checkStatus(s, j, member); in.invalid == nil && len(s.Commits) > 0 {
			*after = s.Commits[len(s.Commits)-1].Step
		}
		t.send(ctx, in)
	}
}

func (t *term) send(ctx context.Context, in any) {
	select {
	case t.inputs <- in:
	case <-ctx.Done():
	}
}

// probe finds out whether a member's process runs. Silence proves nothing while this process itself is paused: then it
// asks again.
func (t *term) probe(ctx context.Context, member, address string) policy.Probed {
	outcome := policy.Silent
	for try := 0; try < mostProbes && outcome == policy.Silent && ctx.Err() == nil; try++ {
		var starved bool
		if outcome, starved = t.probeOnce(ctx, member, address); !starved {
			break
		}
	}
	return policy.Probed{Member: member, Outcome: outcome}
}

// probeOnce asks once: a refused connection says no, a stopped process accepts but never answers. Dialling goes on
// beside the question: a process that is just dying may still accept, and is then refused a moment later.
func (t *term) probeOnce(ctx context.Context, member, address string) (outcome policy.Outcome, starved bool) {
	ctx, cancel := context.WithTimeout(ctx, policy.ProbeTimeout)
	defer cancel()
	refused, late := make(chan bool, 1), make(chan bool, 1)
	go func() {
		refused <- awaitRefusal(ctx, address)
		cancel()
	}()
	go func() { late <- pausedUntil(ctx) }()
	outcome = t.ask(ctx, member, address)
	cancel()
	if <-refused && outcome == policy.Silent {
		outcome = policy.Refused
	}
	return outcome, <-late
}

// pausedUntil waits for the end of ctx and reports whether this process was paused meanwhile.
func pausedUntil(ctx context.Context) (paused bool) {
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return paused || time.Since(last) > policy.CoordinatorPause
		case <-tick.C:
			now := time.Now()
			paused, last = paused || now.Sub(last) > policy.CoordinatorPause, now
		}
	}
}

// ask repeats the probe until it is answered or ctx ends: a connection may break meanwhile.
func (t *term) ask(ctx context.Context, member, address string) policy.Outcome {
	for ctx.Err() == nil {
		if conn, err := t.c.pool.Dial(address); err == nil {
			s, err := proto.NewMemberClient(conn).Probe(ctx, &proto.ProbeRequest{Job: t.uuid}, grpc.WaitForReady(true),
				grpc.MaxCallRecvMsgSize(maxStatus))
			switch {
			case err == nil && s.Member == member:
				return policy.Alive
			case err == nil: // another process took the address over
				return policy.Refused
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
	return policy.Silent
}

// awaitRefusal dials until a connection is refused, or ctx ends.
func awaitRefusal(ctx context.Context, address string) bool {
	var d net.Dialer
	for ctx.Err() == nil {
		conn, err := d.DialContext(ctx, "tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return true
		}
		if err == nil {
			_ = conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
	return false
}
