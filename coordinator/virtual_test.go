package coordinator

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/serving"
	"evenweave/internal/state"
	"evenweave/proto"
)

// serve lets a term reach these members, by their addresses, in memory and so in virtual time, until the test ends.
func (t *term) serve(test *testing.T, members map[string]proto.MemberServer) {
	test.Helper()
	at := map[string]*bufconn.Listener{}
	for address, m := range members {
		l := bufconn.Listen(1 << 20)
		at[address] = l
		server, ended := serving.NewServer(slog.New(slog.DiscardHandler), func() {}, grpc.WaitForHandlers(true)),
			make(chan struct{})
		proto.RegisterMemberServer(server, m)
		go func() { defer close(ended); _ = server.Serve(l) }()
		test.Cleanup(func() { server.Stop(); <-ended })
	}
	pool := &proto.Pool{Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			if l := at[address]; l != nil {
				return l.DialContext(ctx)
			}
			return nil, errors.New("refused")
		})}}
	test.Cleanup(pool.Close)
	t.dialer.pool, t.dialer.keys = pool, func(string) []string { return nil }
}

// paced is a member that gives a block of its state in a time.
type paced struct {
	holds
	block time.Duration
	asked *[]time.Duration
}

func (p paced) State(r *proto.StateRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	*p.asked = append(*p.asked, p.block)
	sent := 0
	return proto.SendBlocks(func(b *proto.Block) error {
		for sent += len(b.Data); sent >= state.BlockSize; sent -= state.BlockSize {
			select {
			case <-time.After(p.block):
			case <-stream.Context().Done():
			}
		}
		return stream.Send(b)
	}, time.Minute, p.state.Pieces(r.Offset, p.state.Size()))
}

// discs takes states and keeps none.
type discs struct{ holding }

func (d discs) write(ctx context.Context, j job.Job, term int64, s state.Stream) (checkpoint.Entry, error) {
	if err := s.Image(io.Discard); err != nil {
		return checkpoint.Entry{}, err
	}
	return d.holding.write(ctx, j, term, s)
}

// TestASlowHolderDelaysNoCheckpoint: a member that gives each block just before it counts as silent is given up soon,
// once, and named; another that holds the state is asked. If there is none, it is waited for in the end.
func TestASlowHolderDelaysNoCheckpoint(t *testing.T) {
	const late = fetchQuiet - 500*time.Millisecond
	for name, c := range map[string]struct {
		block []time.Duration // by member
		most  time.Duration   // that each of two states may take
		asked []int           // for them
		named int
	}{
		"one of two":       {[]time.Duration{late, 0}, 20 * time.Second, []int{2, 1}, 1},
		"two of three":     {[]time.Duration{late, late, 0}, 40 * time.Second, []int{3, 1}, 2},
		"a slow network":   {[]time.Duration{time.Second, time.Second}, 40 * time.Second, []int{2, 2}, 2},
		"slow and healthy": {[]time.Duration{200 * time.Millisecond}, 10 * time.Second, []int{1, 1}, 0},
		"the only one":     {[]time.Duration{late}, 10 * time.Minute, []int{7, 7}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ids := strings.Split("abc"[:len(c.block)], "")
				one, events := leading(t, ids...)
				one.dialer.layout = flat(t, 4<<20) // 16 MiB
				one.saver.sink = discs{}
				one.steps.last = 40
				<-time.After(time.Hour) // since the term began
				for i, step := range []int64{10, 20} {
					due := state.New(one.dialer.layout, one.dialer.samples)
					due.Step = step
					held := holds{state: state.Seal(due)}
					var asked []time.Duration
					members := map[string]proto.MemberServer{}
					for at, id := range ids {
						members[id+":1"] = paced{held, c.block[at], &asked}
					}
					one.serve(t, members)
					one.saver.busy = true
					for _, id := range ids {
						one.says(t, &proto.Status{Member: id, Generation: 1, Step: step,
							Due: []*proto.HeldState{{Step: step, Sha256: held.state.SHA256[:], Generation: 1}}})
					}
					one.saver.busy = false
					began := time.Now()
					for one.saver.durable.Manifest.Step < step && time.Since(began) < time.Hour {
						one.saver.save(t.Context())
						select {
						case in := <-one.inputs:
							if end, err := one.take(t.Context(), in); end || err != nil {
								t.Fatal(end, err)
							}
						case <-time.After(tickEvery):
						}
					}
					if took := time.Since(began); took > c.most || len(asked) != c.asked[i] {
						t.Errorf("step %d: %v, asked for blocks in %v each; want %d tries in %v", step, took, asked,
							c.asked[i], c.most)
					}
					one.tasks.Wait()
				}
				if got := events.warnings(); len(got) != c.named {
					t.Errorf("warned %d times: %q", len(got), got)
				}
			})
		})
	}
}

// saying is a member that gives statuses in its own way; it counts the streams.
type saying struct {
	proto.UnimplementedMemberServer
	say     func(ctx context.Context, say func() error) error
	streams *atomic.Int64
}

func (s saying) Follow(_ *proto.FollowRequest, stream grpc.ServerStreamingServer[proto.Status]) error {
	s.streams.Add(1)
	return s.say(stream.Context(), func() error {
		return stream.Send(&proto.Status{Member: "a", Job: "job", Generation: 1, Step: 40})
	})
}

// TestAMemberThatStopsToReportIsNamed, whether its stream stays open and silent or ends again and again: its old status
// counts no more, and it is not asked all the time. One that goes on is not named, however late its statuses are taken.
func TestAMemberThatStopsToReportIsNamed(t *testing.T) {
	each := func(times int, end error) func(context.Context, func() error) error {
		return func(ctx context.Context, say func() error) error {
			for range times {
				if err := say(); err != nil {
					return err
				}
				select {
				case <-time.After(time.Second):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return end
		}
	}
	for name, c := range map[string]struct {
		say     func(ctx context.Context, say func() error) error
		takes   time.Duration // what the loop needs for a status
		named   string
		streams [2]int64 // in five minutes: at least, at most
		ended   bool
	}{
		"goes on": {say: each(1000, nil), streams: [2]int64{1, 1}},
		"is silent": {say: func(ctx context.Context, say func() error) error {
			defer func() { <-ctx.Done() }()
			return say()
		}, named: proto.ErrSilent.Error(), streams: [2]int64{15, 25}, ended: true},
		"ends at once":     {say: each(1, nil), named: "EOF", streams: [2]int64{80, 160}, ended: true},
		"ends at times":    {say: each(60, nil), streams: [2]int64{5, 5}, ended: true},
		"is taken up late": {say: each(1000, nil), takes: time.Minute, streams: [2]int64{1, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, events := leading(t)
				streams := &atomic.Int64{}
				one.serve(t, map[string]proto.MemberServer{"a:1": saying{say: c.say, streams: streams}})
				ctx, stop := context.WithCancel(t.Context())
				time.AfterFunc(5*time.Minute, stop) // a deadline would end the member's side, too
				one.saver.busy = true
				one.tasks.Go(func() { one.dialer.follow(ctx, *one.members.job(), "a", "a:1", 0, one.inputs) })
				ended := false
				for ctx.Err() == nil {
					select {
					case in := <-one.inputs:
						if in.(followed).invalid != nil {
							t.Fatal(in)
						}
						if c.takes > 0 {
							<-time.After(c.takes)
						}
						if end, err := one.take(ctx, in); end || err != nil {
							t.Fatal(end, err)
						}
						ended = ended || one.members.statuses["a"] == nil
					case <-ctx.Done():
					}
				}
				one.tasks.Wait()
				said := events.warnings()
				named := c.named == "" && len(said) == 0 || len(said) == 1 && c.named != "" &&
					strings.Contains(said[0], c.named) && strings.Contains(said[0], "a at a:1")
				if !named || ended != c.ended {
					t.Errorf("its status was dropped: %v; warned: %q", ended, said)
				}
				if n := streams.Load(); n < c.streams[0] || n > c.streams[1] {
					t.Errorf("%d streams", n)
				}
			})
		})
	}
}
