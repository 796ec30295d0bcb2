package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"evenweave/allreduce"
	"evenweave/allreduce/grpclink"
	"evenweave/internal/processors"
)

// Parent and child exchange JSON lines: setup, addresses, peers, ready; then order and report until the parent closes
// the child's input.
type (
	setup struct {
		Rank, Size      int
		Segment, Window int
		Processors      int    // of the machine
		Secure          string // of certify
	}
	addresses struct {
		Rings map[string]string // by transport
		TCP   string
	}
	peers struct{ Right addresses }
	ready struct{}
	order struct {
		Work  string // over which transport to sum, or "tcp": the bytes alone
		Bytes int
		Times int
	}
	report struct {
		Nanos     []int64 // each repetition's time
		CPU       float64 // seconds of processor time for all of them
		Allocated uint64  // bytes
		Objects   uint64
	}
)

const limit = time.Minute // for one ring to open, or for one sum

// Child is one member of a benchmark, run in a process of its own with the parent on its input and output.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	talk := newTalk(in, out)
	var s setup
	if err := talk.read(&s); err != nil {
		return err
	}
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), max(1, s.Processors/s.Size))) // its share, as a worker has
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer socket.Close()
	over, err := transports(s.Secure)
	if err != nil {
		return err
	}
	here, ends := addresses{TCP: socket.Addr().String(), Rings: map[string]string{}}, map[string]*end{}
	var serving sync.WaitGroup
	defer serving.Wait()
	for name, o := range over {
		at := "127.0.0.1:0"
		if name == overUnix {
			at = fmt.Sprintf("unix:rank-%d.sock", s.Rank)
		}
		e, err := listen(o, at, &serving)
		if err != nil {
			return err
		}
		defer e.server.Stop()
		ends[name], here.Rings[name] = e, e.address
	}
	if err := talk.write(here); err != nil {
		return err
	}
	var p peers
	if err := talk.read(&p); err != nil {
		return err
	}
	rings := map[string]*allreduce.Ring{}
	for _, name := range slices.Sorted(maps.Keys(ends)) {
		ring, err := openRing(ctx, ends[name], p.Right.Rings[name], s)
		if err != nil {
			return err
		}
		defer ring.Abort(errors.New("the benchmark is over"))
		rings[name] = ring
	}
	plain, err := openTCP(socket, p.Right.TCP, s.Size)
	if err != nil {
		return err
	}
	defer plain.close()
	if err := talk.write(ready{}); err != nil {
		return err
	}
	return obey(ctx, talk, rings, plain)
}

// talk is one end of the conversation between parent and child.
type talk struct {
	in  *json.Decoder
	out *json.Encoder
}

func newTalk(in io.Reader, out io.Writer) talk {
	return talk{json.NewDecoder(bufio.NewReader(in)), json.NewEncoder(out)}
}

func (t talk) read(v any) error  { return t.in.Decode(v) }
func (t talk) write(v any) error { return t.out.Encode(v) }

func openRing(ctx context.Context, e *end, right string, s setup) (*allreduce.Ring, error) {
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	id := func(rank int) string { return fmt.Sprint("rank-", (rank+s.Size)%s.Size) }
	to, err := e.dial(ctx, right, grpclink.Hello{Job: benchJob, Generation: 1, From: id(s.Rank),
		To: id(s.Rank + 1), FromRank: s.Rank, ToRank: (s.Rank + 1) % s.Size})
	if err != nil {
		return nil, err
	}
	from, err := e.links.Accept(ctx, benchJob, 1, id(s.Rank-1))
	if err != nil {
		to.Abort(err)
		return nil, err
	}
	return allreduce.New(allreduce.Config{Job: benchJob, Generation: 1, Rank: s.Rank, Size: s.Size,
		SegmentBytes: s.Segment, WindowBytes: s.Window}, from, to)
}

// obey does what the parent orders until the parent closes the input.
func obey(ctx context.Context, talk talk, rings map[string]*allreduce.Ring,
	plain *tcpRing) error {
	var step int64
	for {
		var o order
		if err := talk.read(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		buf := make([]int64, o.Bytes/8)
		work := func() error {
			step++
			ctx, stop := context.WithTimeout(ctx, limit)
			defer stop()
			return rings[o.Work].Sum(ctx, step, buf)
		}
		if o.Work == "tcp" {
			plain.resize(o.Bytes)
			work = plain.exchange
		}
		r, err := measure(o.Times, work)
		if err != nil {
			return err
		}
		if err := talk.write(r); err != nil {
			return err
		}
	}
}

// measure repeats work and reports what it took.
func measure(times int, work func() error) (report, error) {
	r := report{Nanos: make([]int64, times)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, _ := processors.Used()
	for i := range times {
		begun := time.Now()
		if err := work(); err != nil {
			return r, err
		}
		r.Nanos[i] = time.Since(begun).Nanoseconds()
	}
	now, _ := processors.Used()
	r.CPU = (now - cpu).Seconds()
	runtime.ReadMemStats(&after)
	r.Allocated, r.Objects = after.TotalAlloc-before.TotalAlloc, after.Mallocs-before.Mallocs
	return r, nil
}
