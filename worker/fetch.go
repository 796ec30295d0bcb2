package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
	"evenweave/internal/transfer"
	"evenweave/proto"
)

const (
	// fetchPoll is how long the others wait for a member that fetches before the ranks exchange states again: so they
	// need no deadline for a state, however large it is.
	fetchPoll    = 200 * time.Millisecond
	mostPeers    = 3 // that send a state at once
	twoCopies    = 4 // the coordinator sends two copies of a checkpoint to so many members and more
	stateQuiet   = 60 * time.Second
	newestWithin = time.Second // a probe is answered from memory
	// maxUpdate bounds a message of an update: its head names each sample of a step, in at most 5 bytes.
	maxUpdate = 5*job.MaxGlobalBatch + 64<<10
)

// fetcher reads a state.
type fetcher interface {
	Fetch(ctx context.Context, w Wanted) (*state.State, error)
	// Updates opens the Updates of the member with these keys at an address, which end with ctx. The words of a message
	// are valid until the next one.
	Updates(ctx context.Context, address string, keys []string, job string) (next func() (*proto.Update, error),
		err error)
	// Newest is the step of the member with these keys at an address, now.
	Newest(ctx context.Context, address string, keys []string, job string) (int64, error)
}

// Wanted is a state to fetch, and where it is.
type Wanted struct {
	Job   string
	Step  int64
	Peers []string            // addresses of members that hold it, or fetch it themselves
	Keys  map[string][]string // by address: what the peer there has registered
	// the address of the coordinator, which has it as a checkpoint; nil: it is not asked
	Coordinator func() string
	Image       []byte             // of transfer.Download
	Quiet       time.Duration      // without a block, after which it is given up
	Pace        time.Duration      // of transfer.Download
	Quick       bool               // of transfer.Download
	Gone        func(error) bool   // of transfer.Download; may be nil
	Resume      *transfer.Assembly // of an earlier attempt; may be nil
	Began       func(*transfer.Assembly)
	Arrived     func(blocks int)
}

// fetching is a fetch in progress.
type fetching struct {
	step      int64
	restoring bool         // a checkpoint, which all members load
	from      string       // id of the member that is blamed for it; "": the coordinator
	arrivals  atomic.Int64 // of blocks and signs of life
	cancel    context.CancelFunc
	done      chan struct{}
	state     *state.State
	err       error
}

// obtain replaces this member's state by the chosen one, or fetches on for a while: nil says that the ranks are to
// exchange their states again.
func (g *generation) obtain(ctx context.Context, c policy.Choice, slots []int64) error {
	g.report.phase(phaseFetch)
	// While members load a checkpoint they report no state, so the others' choice says nothing.
	if f := g.fetching; f == nil || f.step != c.Step && !f.restoring {
		g.stopFetching()
		g.startFetching(ctx, c)
	}
	f := g.fetching
	select {
	case <-f.done:
	case <-time.After(fetchPoll):
		return nil
	}
	g.fetching = nil
	if f.err != nil {
		return &blamed{suspect: f.from, kind: policy.KindFetch, err: fmt.Errorf("state of step %d from %s: %w",
			f.step, orCoordinator(f.from), f.err)}
	}
	if f.restoring {
		// A state that was as new as the checkpoint was damaged, or no majority had it. An older one was just old.
		if r := g.replica; r.broken || r.counts() && r.step >= f.step {
			g.healed(fmt.Sprintf("the checkpoint of step %d", f.step))
		}
		g.restored = f.step
		g.replica.acknowledge(f.step)
		return g.replica.adopt(f.state)
	}
	if len(c.Holders) > 0 {
		if found := f.state.Fingerprint(); found != state.Fingerprint(c.Fingerprint) {
			return &blamed{suspect: f.from, kind: policy.KindProtocol, err: fmt.Errorf("state of step %d from %s has "+
				"fingerprint %s, it announced %s", c.Step, f.from, found, state.Fingerprint(c.Fingerprint))}
		}
	}
	if differs := slots[policy.SlotWords*g.rank] == c.Step+1; differs || g.replica.broken {
		g.healed(fmt.Sprintf("that of %s (%d of %d agree)", f.from, len(c.Holders), g.world.Size()))
	} else {
		g.log.Info("caught up", "step", c.Step, "from", f.from)
	}
	return g.replica.adopt(f.state)
}

func orCoordinator(member string) string {
	if member == "" {
		return "the coordinator"
	}
	return member
}

// startFetching fetches the chosen state from members that hold it. If none does, each member gets the checkpoint from
// the one before it, block by block as they arrive there, and the first from the coordinator: however many they are,
// it sends one copy, or two.
func (g *generation) startFetching(ctx context.Context, c policy.Choice) {
	r := g.replica
	if up := g.catching; up != nil { // the fetch replaces what it would lead to
		up.stop()
		g.catching, g.caught = nil, 1+up.parts.Load()
	}
	w := Wanted{Job: g.world.Job, Step: c.Step, Quiet: g.deadlines().Fetch, Resume: r.partial.Load(),
		Quick: len(c.Holders) > 0, // obtain compares the fingerprint
		Began: func(a *transfer.Assembly) { r.partial.Store(a) }, Keys: map[string][]string{}}
	f := &fetching{step: c.Step, restoring: len(c.Holders) == 0, done: make(chan struct{})}
	w.Arrived = func(int) {
		f.arrivals.Add(1)
		g.report.advanced()
	}
	from := func(rank int) {
		p := g.world.Peers[rank]
		w.Peers, w.Keys[p.Address] = append(w.Peers, p.Address), g.world.Keys[p.ID]
	}
	for i := range min(len(c.Holders), mostPeers) {
		from(c.Source(g.rank, g.world.Generation+int64(i)))
	}
	if f.restoring {
		w.Coordinator = g.leader
		if n := g.world.Size(); g.rank > 0 && (n < twoCopies || g.rank != n/2) {
			from(g.rank - 1)
		}
		g.log.Info("loading the checkpoint", "step", c.Step, "from", append(w.Peers, g.leader())[0])
	} else {
		f.from = g.world.Peers[c.Source(g.rank, g.world.Generation)].ID
	}
	ctx, f.cancel = context.WithCancel(ctx)
	g.fetching = f
	go func() {
		defer close(f.done)
		f.state, f.err = g.fetch.Fetch(ctx, w)
	}()
}

// stopFetching ends the fetch in progress, if there is one. What has arrived stays for the next.
func (g *generation) stopFetching() {
	if f := g.fetching; f != nil {
		f.cancel()
		<-f.done
		g.fetching = nil
	}
}

// Fetcher reads states over gRPC through shared sets of connections.
type Fetcher struct {
	Dial    transfer.Dial // a member
	Lead    transfer.Dial // the coordinator
	Layout  *state.Layout // of the states
	Samples int           // that they are trained on
	// ExpectKeys returns the options of a call that only a member with these keys may answer.
	ExpectKeys func(keys []string) []grpc.CallOption
}

// Updates implements fetcher.
func (f Fetcher) Updates(ctx context.Context, address string, keys []string,
	job string) (func() (*proto.Update, error), error) {
	conn, err := f.Dial(address)
	if err != nil {
		return nil, err
	}
	stream, err := proto.NewMemberClient(conn).Updates(ctx, &proto.UpdatesRequest{Job: job},
		append(f.ExpectKeys(keys), grpc.MaxCallRecvMsgSize(maxUpdate), proto.AsBlocks)...)
	if err != nil {
		return nil, err
	}
	var memory []byte // a step's words come in hundreds of messages
	return func() (*proto.Update, error) {
		u := &proto.Update{Words: memory}
		err := stream.RecvMsg(u)
		if len(u.Words) > 0 {
			memory = u.Words
		}
		return u, err
	}, nil
}

// Newest implements fetcher.
func (f Fetcher) Newest(ctx context.Context, address string, keys []string, job string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, newestWithin)
	defer cancel()
	conn, err := f.Dial(address)
	if err != nil {
		return 0, err
	}
	st, err := proto.NewMemberClient(conn).Probe(ctx, &proto.ProbeRequest{Job: job}, f.ExpectKeys(keys)...)
	return st.GetStep(), err
}

// Fetch gets a state. Members send its blocks, and its head unless there is a coordinator to ask: it sends the head,
// and blocks only if there are no members or they send nothing.
func (f Fetcher) Fetch(ctx context.Context, w Wanted) (*state.State, error) {
	d := transfer.Download{Layout: f.Layout, Samples: f.Samples, Step: w.Step, Quiet: w.Quiet, Pace: w.Pace,
		Resume: w.Resume, Began: w.Began, Arrived: w.Arrived, Gone: w.Gone, Quick: w.Quick, Image: w.Image}
	for _, address := range w.Peers {
		to := f.ExpectKeys(w.Keys[address])
		d.Sources = append(d.Sources, transfer.Member(f.Dial, address, w.Job, w.Step, w.Quick, to...))
	}
	if w.Coordinator != nil {
		lead := []transfer.Source{transfer.Coordinator(f.Lead, w.Coordinator, w.Job, w.Step)}
		if d.Head = lead; len(d.Sources) == 0 {
			d.Sources = lead
		} else {
			d.Reserve = lead
		}
	}
	s, err := d.Run(ctx)
	if err != nil {
		return nil, err
	}
	return s.State, nil
}
