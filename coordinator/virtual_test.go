package coordinator

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/proto"
)

// serve lets a term reach these members, by their addresses, in memory and so in virtual time, until the test ends.
func (t *term) serve(test *testing.T, members map[string]proto.MemberServer) {
	test.Helper()
	at := map[string]*bufconn.Listener{}
	for address, m := range members {
		at[address] = bufconn.Listen(64 << 10)
		server, serving := grpc.NewServer(grpc.WaitForHandlers(true)), make(chan struct{})
		proto.RegisterMemberServer(server, m)
		go func() { defer close(serving); _ = server.Serve(at[address]) }()
		test.Cleanup(func() { server.Stop(); <-serving })
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
		"a slow network":   {[]time.Duration{time.Second, time.Second}, 70 * time.Second, []int{3, 3}, 4},
		"slow and healthy": {[]time.Duration{200 * time.Millisecond}, 10 * time.Second, []int{1, 1}, 0},
		"the only one":     {[]time.Duration{late}, 10 * time.Minute, []int{7, 7}, 12},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ids := strings.Split("abc"[:len(c.block)], "")
				one, events := leading(t, ids...)
				one.dialer.layout = flat(t, 8<<20) // 32 MiB
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
