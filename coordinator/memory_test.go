package coordinator

import (
	"context"
	"io"
	"log/slog"
	"net"
	"runtime"
	"testing"
	"time"

	"google.golang.org/grpc"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/security"
	"evenweave/internal/serving"
	"evenweave/internal/state"
	"evenweave/proto"
)

// holds is a member that holds one state.
type holds struct {
	proto.UnimplementedMemberServer
	state *state.Sealed
}

func (h holds) State(r *proto.StateRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	return proto.SendBlocks(stream.Send, time.Minute, h.state.Pieces(r.Offset, h.state.Size()))
}

// peak is the most memory in use while something goes on, beyond what was in use before.
type peak struct {
	before, most uint64
	moved, next  int
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// takes notes that so many more bytes have moved, and measures now and then.
func (p *peak) takes(n int) {
	if p.moved += n; p.moved >= p.next {
		p.next = p.moved + 8<<20
		p.most = max(p.most, max(inUse(), p.before)-p.before)
	}
}

// measured is the machine's file system, which measures memory as files grow.
type measured struct {
	checkpoint.OS
	*peak
}

func (m measured) Create(name string) (checkpoint.File, error) {
	f, err := m.OS.Create(name)
	return measuredFile{f, m.peak}, err
}

type measuredFile struct {
	checkpoint.File
	*peak
}

func (f measuredFile) Write(p []byte) (int, error) {
	f.takes(len(p))
	return f.File.Write(p)
}

// sent is the server's end of a Checkpoint call, which measures memory.
type sent struct {
	grpc.ServerStreamingServer[proto.Block]
	ctx context.Context
	*peak
}

func (s sent) Context() context.Context { return s.ctx }

func (s sent) Send(b *proto.Block) error {
	s.takes(len(b.Data))
	return nil
}

// flowing is a model of zeros that holds nothing.
type flowing struct{ evenweave.Model }

func (flowing) Init(uint64) error { return nil }
func (flowing) Read(_ int, _ int64, p []byte) error {
	clear(p)
	return nil
}

// TestTheInitialStateIsNeverWholeInMemory, whether the model makes it here or another process gives it.
func TestTheInitialStateIsNeverWholeInMemory(t *testing.T) {
	layout := flat(t, 12<<20) // 48 MiB
	j := job.Job{UUID: "u", Spec: job.Spec{Samples: 100, GlobalBatch: 10, MicroBatch: 10, Steps: 5}}
	var hashes []string
	for name, initial := range map[string]func(context.Context, job.Job, func(io.Reader) error) error{
		"the model": nil,
		"another process": func(_ context.Context, _ job.Job, save func(io.Reader) error) error {
			s, err := probe.Initial(flowing{}, layout, 1, 100)
			if err != nil {
				return err
			}
			r, w := io.Pipe()
			go func() { w.CloseWithError(s.Encode(w)) }()
			defer r.Close()
			return save(r)
		},
	} {
		p := &peak{}
		store, err := checkpoint.Open(t.TempDir(), checkpoint.Options{FS: measured{peak: p}})
		if err != nil {
			t.Fatal(err)
		}
		c := newCoordinator(Config{Model: flowing{}, Initial: initial, Spec: j.Spec,
			Log: slog.New(slog.DiscardHandler)}, nil, store, layout)
		p.before = inUse()
		if err := c.initialise(t.Context(), j, 1); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		const most = 12 << 20
		if p.moved < int(layout.Size) || p.most > most {
			t.Errorf("%s: saving %d bytes took %d of memory, at most %d expected", name, p.moved, p.most, most)
		}
		e, err := store.Latest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, e.Manifest.Fingerprint+e.Manifest.WeightsSHA256)
	}
	if hashes[0] != hashes[1] {
		t.Errorf("the states differ: %q", hashes)
	}
}

// TestAStateIsNeverWholeInMemory: to save a state, to find it again and to send it takes a few blocks of memory,
// however large it is.
func TestAStateIsNeverWholeInMemory(t *testing.T) {
	const most = 12 << 20
	one, _ := leading(t)
	d := one.dialer
	d.layout = flat(t, 12<<20) // 48 MiB
	s := state.New(d.layout, d.samples)
	s.Step, s.Image[7], s.Image[len(s.Image)-1] = 10, 1, 2
	held := state.Seal(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	member, serves := grpc.NewServer(), make(chan struct{})
	proto.RegisterMemberServer(member, holds{state: held})
	go func() { defer close(serves); _ = member.Serve(l) }()
	defer func() { d.pool.Close(); member.Stop(); <-serves }()
	dir, p := t.TempDir(), &peak{}
	open := func() *checkpoint.Store {
		store, err := checkpoint.Open(dir, checkpoint.Options{FS: measured{peak: p}})
		if err != nil {
			t.Fatal(err)
		}
		return store
	}
	p.before = inUse()
	stream, err := d.fetch(t.Context(), "a", l.Addr().String(), 10, string(held.SHA256[:]))
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{Store: open(), layout: d.layout, samples: d.samples, log: slog.New(slog.DiscardHandler)}
	e, err := a.write(t.Context(), *one.members.job(), 1, stream)
	if err != nil {
		t.Fatal(err)
	}
	if p.moved < int(held.Size()) || p.most > most {
		t.Errorf("saving %d bytes took %d of memory, at most %d expected", p.moved, p.most, most)
	}
	if found := e.Manifest.Fingerprint; found != s.Fingerprint().String() {
		t.Errorf("fingerprint %s, expected %s", found, s.Fingerprint())
	}
	if _, err := checkpoint.Verify(t.Context(), e.Path); err != nil {
		t.Error(err)
	}
	*p = peak{before: inUse()}
	leads := func() cluster.View { return cluster.View{Job: &job.Job{UUID: "mine"}} }
	c := &server{over: security.For(nil), store: open(), log: a.log, view: leads,
		streams: serving.NewRanges("checkpoints", maxStreams)}
	request := &proto.CheckpointRequest{Job: "mine", Step: 10}
	if err := c.Checkpoint(request, sent{ctx: t.Context(), peak: p}); err != nil {
		t.Fatal(err)
	}
	if p.moved != int(held.Size()) || p.most > most {
		t.Errorf("sending %d of %d bytes took %d of memory, at most %d expected", p.moved, held.Size(), p.most, most)
	}
	runtime.KeepAlive(held)
}
