package bench

import "time"

// Model is the cost model of a ring, fitted to rows: a sum of B bytes over N members takes 2(N-1) hops of HopMicros
// each, and 2(N-1)/N times B bytes of ByteNanos each.
type Model struct {
	Event     string    `json:"event"` // "model"
	When      time.Time `json:"time"`
	Network   string    `json:"network"`
	Workers   int       `json:"workers"`
	HopMicros float64   `json:"hop_us"`
	ByteNanos float64   `json:"byte_ns"`
	// Crossing is the buffer size in bytes at which hops and bytes cost the same. A ring suits larger buffers.
	Crossing float64 `json:"crossing_bytes"`
}

// fit finds the model of the rows of one world by least squares of the relative error, so that small buffers count as
// much as large ones.
func fit(rows []Row) (m Model, ok bool) {
	var xx, xy, yy, xt, yt float64
	for _, r := range rows {
		hops := 2 * float64(r.Workers-1)
		x, y := hops/r.Millis, hops/float64(r.Workers)*float64(r.Bytes)/r.Millis // of a, of b; the target is 1
		xx, xy, yy, xt, yt = xx+x*x, xy+x*y, yy+y*y, xt+x, yt+y
	}
	det := xx*yy - xy*xy
	if len(rows) < 2 || det < 1e-9*xx*yy {
		return m, false
	}
	a, b := (xt*yy-yt*xy)/det, (yt*xx-xt*xy)/det // ms a hop, ms a byte
	n := rows[0].Workers
	return Model{Event: "model", When: time.Now(), Network: rows[0].Network, Workers: n, HopMicros: a * 1e3,
		ByteNanos: b * 1e6, Crossing: a / b * float64(n)}, true
}
