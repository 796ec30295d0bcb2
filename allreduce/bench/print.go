package bench

import (
	"encoding/json"
	"fmt"
	"io"
)

// printer writes rows as they come.
type printer struct {
	json *json.Encoder // nil for a table
	out  io.Writer
	rows []Row // of the running world
	head bool  // whether the table's head is printed
}

func newPrinter(format string, w io.Writer) (*printer, error) {
	switch format {
	case "", "table":
		return &printer{out: w}, nil
	case "json":
		return &printer{json: json.NewEncoder(w)}, nil
	}
	return nil, fmt.Errorf("bench: output %q, expected table or json", format)
}

func (p *printer) row(r Row) error {
	p.rows = append(p.rows, r)
	if p.json != nil {
		return p.json.Encode(r)
	}
	if !p.head {
		p.head = true
		fmt.Fprintf(p.out, "%-8s %3s %8s %9s %19s %8s %8s %8s %6s %9s %9s %9s\n",
			"network", "N", "bytes", "ms", "(p10 - p90)", "alg GB/s", "bus GB/s", "tcp ms", "x tcp",
			"cpu s/GB", "tcp s/GB", "alloc B"+r.secureHead())
	}
	fmt.Fprintf(p.out, "%-8s %3d %8s %9.3f %19s %8.3f %8.3f", r.Network, r.Workers, size(r.Bytes),
		r.Millis, fmt.Sprintf("(%.3f - %.3f)", r.Low, r.High), r.AlgorithmGBps, r.BusGBps)
	if r.TCPMillis > 0 {
		fmt.Fprintf(p.out, " %8.3f %6.2f %9.2f %9.2f %9.0f", r.TCPMillis, r.TimesTCP, r.CPUPerGB,
			r.TCPCPUPerGB, r.Allocated)
	}
	if r.TLSMillis > 0 {
		fmt.Fprintf(p.out, " %8.3f %7.2f %9.2f %8.3f %7.2f %9.2f", r.TLSMillis, r.TLSTimes, r.TLSCPUPerGB, r.UnixMillis,
			r.UnixTimes, r.UnixCPUPerGB)
	}
	_, err := fmt.Fprintln(p.out)
	return err
}

// secureHead heads the columns of TLS and Unix sockets, if they were measured; "x" is how many times the plain ring's.
func (r Row) secureHead() string {
	if r.TLSMillis == 0 {
		return ""
	}
	return fmt.Sprintf(" %8s %7s %9s %8s %7s %9s", "tls ms", "x ring", "tls s/GB", "unix ms", "x ring", "unix s/GB")
}

// model prints the cost model of the world whose rows were printed last.
func (p *printer) model() error {
	m, ok := fit(p.rows)
	p.rows = nil
	switch {
	case !ok:
		return nil
	case p.json != nil:
		return p.json.Encode(m)
	}
	_, err := fmt.Fprintf(p.out, "%-8s %3d  model: %.1f us a hop, %.3f ns a byte: bytes outweigh hops above %s\n",
		m.Network, m.Workers, m.HopMicros, m.ByteNanos, size(int(m.Crossing)))
	return err
}

func size(bytes int) string {
	switch {
	case bytes >= 1<<20 && bytes%(1<<20) == 0:
		return fmt.Sprintf("%dM", bytes>>20)
	case bytes >= 1000:
		return fmt.Sprintf("%.1fK", float64(bytes)/1000)
	}
	return fmt.Sprint(bytes)
}
