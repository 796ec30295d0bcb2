// Package bench measures the ring: as processes on this machine's loopback beside a plain-TCP bound of the same run,
// and over emulated networks in virtual time.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"time"

	"evenweave/allreduce/grpclink"
	"evenweave/internal/processors"
)

// Options are what to measure.
type Options struct {
	Workers         []int
	Bytes           []int                 // buffer sizes
	Task            string                // whose step is measured where Bytes has no sizes
	Step            func(workers int) int // bytes of that step
	Output          string                // "table" or "json"
	Network         string                // "" for loopback processes; "lan" or "wan" to emulate one
	Time            time.Duration         // to spend on each figure, about; 0: one second
	Segment, Window int                   // bytes; 0: the ring's defaults
	Secure          bool                  // measure the ring over TLS and Unix sockets, too
	Pin             bool                  // give every member a processor of its own, in turn (Linux)
	Child           []string              // the command that runs Child in a process of its own
}

// Check returns an error that names the options that cannot be measured.
func (o Options) Check() error {
	if _, ok := networks[o.Network]; !ok && o.Network != "" {
		return fmt.Errorf("bench: network %q, expected lan or wan", o.Network)
	}
	if o.Network != "" && o.Secure {
		return errors.New("bench: --tls is measured over loopback: leave out --net")
	}
	if o.Network == "" && (o.Segment > grpclink.MaxSegmentBytes || o.Window > grpclink.MaxWindowBytes) {
		return fmt.Errorf("bench: segments of %d bytes and a window of %d: expected at most %d and %d, what a "+
			"ring's streams carry; choose a smaller --segment or --window",
			o.Segment, o.Window, grpclink.MaxSegmentBytes, grpclink.MaxWindowBytes)
	}
	for _, n := range o.Workers {
		if n < 2 {
			return fmt.Errorf("bench: %d workers: a world of one has nothing to measure; ask for 2 or more", n)
		}
	}
	return nil
}

// Row is the figures of one world size and buffer size.
type Row struct {
	Event         string    `json:"event"` // "allreduce"
	When          time.Time `json:"time"`
	Network       string    `json:"network"`
	Workers       int       `json:"workers"`
	Task          string    `json:"task,omitempty"` // whose step has so many bytes
	Bytes         int       `json:"bytes"`
	Times         int       `json:"times"`
	Millis        float64   `json:"ms"`                           // median
	Low           float64   `json:"ms_p10"`                       // spread
	High          float64   `json:"ms_p90"`                       //
	Mean          float64   `json:"ms_mean"`                      //
	AlgorithmGBps float64   `json:"algorithm_gbps"`               // bytes / time
	BusGBps       float64   `json:"bus_gbps"`                     // bytes sent by each member / time
	TCPMillis     float64   `json:"tcp_ms,omitempty"`             // the same bytes and pattern over plain TCP, median
	TimesTCP      float64   `json:"times_tcp,omitempty"`          // how many times the plain-TCP time
	CPUPerGB      float64   `json:"cpu_seconds_per_gb,omitempty"` // of all members, a GB sent
	TCPCPUPerGB   float64   `json:"tcp_cpu_s_per_gb,omitempty"`   // the same for plain TCP
	Allocated     float64   `json:"allocated_bytes,omitempty"`    // by one member a sum, gRPC's included
	Objects       float64   `json:"allocated_objects,omitempty"`  //

	// With Options.Secure: the ring over TLS and over Unix sockets, in turn with the plain one.
	TLSMillis    float64 `json:"tls_ms,omitempty"`
	TLSTimes     float64 `json:"tls_times_plain,omitempty"`
	TLSCPUPerGB  float64 `json:"tls_cpu_s_per_gb,omitempty"`
	UnixMillis   float64 `json:"unix_ms,omitempty"`
	UnixTimes    float64 `json:"unix_times_plain,omitempty"`
	UnixCPUPerGB float64 `json:"unix_cpu_s_per_gb,omitempty"`
}

// Run measures every combination. It writes each row at once, and after each world size the cost model that fits its
// rows.
func Run(ctx context.Context, o Options, w io.Writer) error {
	if o.Time == 0 {
		o.Time = time.Second
	}
	out, err := newPrinter(o.Output, w)
	if err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return err
	}
	for _, n := range o.Workers {
		world := loopback
		if o.Network != "" {
			world = emulated
		}
		if err := errors.Join(world(ctx, o, n, out), out.model()); err != nil {
			return fmt.Errorf("bench: %d workers: %w", n, err)
		}
	}
	return nil
}

// sizes are the buffer sizes of a world.
func (o Options) sizes(workers int) []int {
	if len(o.Bytes) == 0 && o.Step != nil {
		return []int{o.Step(workers)}
	}
	return o.Bytes
}

// rounds is how often ring and plain TCP take turns for one figure, so that noise affects both.
const rounds = 4

// loopback measures a world of processes.
func loopback(ctx context.Context, o Options, size int, out *printer) error {
	secure := ""
	works := []string{overTCP, "tcp"}
	if o.Secure {
		dir, err := certify()
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		secure, works = dir, append(works, overTLS, overUnix)
	}
	w, err := start(ctx, o, size, secure)
	if err != nil {
		return err
	}
	defer w.stop()
	for _, bytes := range o.sizes(size) {
		row := Row{Network: "loopback", Workers: size, Bytes: bytes, Task: o.Task}
		took := map[string]*series{}
		times := map[string]int{}
		for _, work := range works { // Warm up, and see how many fit.
			var trial series
			for range 2 {
				if err := w.order(order{work, bytes, 3}, &trial); err != nil {
					return err
				}
			}
			times[work] = int(max(5, min(2000, o.Time.Nanoseconds()/rounds/max(1, trial.quantile(0.5)))))
		}
		for round := range 1 + rounds {
			for _, work := range works {
				if round <= 1 { // Drop the first round: it fills pools and caches.
					took[work] = &series{}
				}
				if err := w.order(order{work, bytes, times[work]}, took[work]); err != nil {
					return err
				}
			}
		}
		sum, tcp := took[overTCP], took["tcp"]
		row.fill(sum.nanos)
		sent := float64(bytes) / 1e9 * 2 * float64(size-1) // by all members
		row.TCPMillis = float64(tcp.quantile(0.5)) / 1e6
		row.TimesTCP = row.Millis / row.TCPMillis
		row.CPUPerGB = sum.cpu / float64(len(sum.nanos)) / sent
		row.TCPCPUPerGB = tcp.cpu / float64(len(tcp.nanos)) / sent
		if o.Secure {
			tls, unix := took[overTLS], took[overUnix]
			row.TLSMillis, row.UnixMillis = float64(tls.quantile(0.5))/1e6, float64(unix.quantile(0.5))/1e6
			row.TLSTimes, row.UnixTimes = row.TLSMillis/row.Millis, row.UnixMillis/row.Millis
			row.TLSCPUPerGB = tls.cpu / float64(len(tls.nanos)) / sent
			row.UnixCPUPerGB = unix.cpu / float64(len(unix.nanos)) / sent
		}
		row.Allocated = float64(sum.allocated) / float64(len(sum.nanos)*size)
		row.Objects = float64(sum.objects) / float64(len(sum.nanos)*size)
		if err := out.row(row); err != nil {
			return err
		}
	}
	return nil
}

func (r *Row) fill(nanos []int64) {
	s := series{nanos: nanos}
	r.Event, r.When, r.Times = "allreduce", time.Now(), len(nanos)
	r.Millis, r.Low, r.High = float64(s.quantile(0.5))/1e6, float64(s.quantile(0.1))/1e6, float64(s.quantile(0.9))/1e6
	var total int64
	for _, n := range nanos {
		total += n
	}
	r.Mean = float64(total) / float64(len(nanos)) / 1e6
	r.AlgorithmGBps = float64(r.Bytes) / r.Millis / 1e6
	r.BusGBps = r.AlgorithmGBps * 2 * float64(r.Workers-1) / float64(r.Workers)
}

// series gathers reports: rank 0's times, and what all members used.
type series struct {
	nanos              []int64
	cpu                float64
	allocated, objects uint64
}

func (s *series) quantile(q float64) int64 {
	sorted := slices.Sorted(slices.Values(s.nanos))
	return sorted[int(q*float64(len(sorted)-1))]
}

// world is a running set of child processes.
type world struct {
	children []*exec.Cmd
	inputs   []io.Closer
	talks    []talk
}

// start runs the children and joins them in a ring.
func start(ctx context.Context, o Options, size int, secure string) (_ *world, err error) {
	w := &world{}
	defer func() {
		if err != nil {
			w.stop()
		}
	}()
	where := make([]addresses, size)
	for rank := range size {
		cmd := exec.CommandContext(ctx, o.Child[0], o.Child[1:]...)
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		var own []int
		if all := processors.Available(); o.Pin && len(all) > 0 {
			own = all[rank%len(all):][:1]
		}
		if err := processors.Start(cmd, own); err != nil {
			return nil, fmt.Errorf("starting rank %d: %w", rank, err)
		}
		t := newTalk(out, in)
		w.children, w.inputs, w.talks = append(w.children, cmd), append(w.inputs, in), append(w.talks, t)
		if err := t.write(setup{Rank: rank, Size: size, Segment: o.Segment, Window: o.Window,
			Processors: runtime.NumCPU(), Secure: secure}); err != nil {
			return nil, err
		}
		if err := t.read(&where[rank]); err != nil {
			return nil, fmt.Errorf("rank %d did not start: %w", rank, err)
		}
	}
	for rank, t := range w.talks {
		if err := t.write(peers{where[(rank+1)%size]}); err != nil {
			return nil, err
		}
	}
	for rank, t := range w.talks {
		var r ready
		if err := t.read(&r); err != nil {
			return nil, fmt.Errorf("rank %d did not join the ring: %w", rank, err)
		}
	}
	return w, nil
}

// order has every child do the same, and adds up their reports.
func (w *world) order(o order, into *series) error {
	for _, t := range w.talks {
		if err := t.write(o); err != nil {
			return err
		}
	}
	for rank, t := range w.talks {
		var r report
		if err := t.read(&r); err != nil {
			return fmt.Errorf("rank %d: %s of %d bytes: %w", rank, o.Work, o.Bytes, err)
		}
		if rank == 0 {
			into.nanos = append(into.nanos, r.Nanos...)
		}
		into.cpu += r.CPU
		into.allocated += r.Allocated
		into.objects += r.Objects
	}
	return nil
}

// stop closes the children's inputs, so that they exit.
func (w *world) stop() {
	for _, in := range w.inputs {
		_ = in.Close()
	}
	for _, cmd := range w.children {
		_ = cmd.Wait()
	}
}
