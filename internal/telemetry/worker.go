package telemetry

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"evenweave/internal/job"
	"evenweave/proto"
)

// Worker turns what one member does into metrics. One goroutine, the member's loop, calls all methods but Handler, Saw
// and Panicked.
type Worker struct {
	registry *prometheus.Registry

	phases                                   *prometheus.HistogramVec
	steps, microBatches, sent, heals, panics prometheus.Counter
	repeated                                 prometheus.Counter
	generation, rank, worldSize, step, share prometheus.Gauge
	skipped, otherProtocol                   prometheus.Gauge
	broken                                   *prometheus.CounterVec

	place int
}

// NewWorker returns the metrics of a new member with that id.
func NewWorker(member string) *Worker {
	w := &Worker{registry: newRegistry(), place: -1}
	f := factory{w.registry, "worker"}
	w.phases = register(f, prometheus.NewHistogramVec(f.histogramOpts("step_phase_seconds",
		"Time of committed steps by phase: compute (own micro-batches), wait (for slower ranks), reduce (the "+
			"all-reduce without that), update.", stepBuckets), []string{"phase"}))
	w.steps = f.counter("steps_total", "Steps that this member committed.")
	w.repeated = f.counter("steps_repeated_total", "Times that a step was computed again, because gradients had "+
		"outgrown their exponents.")
	w.microBatches = f.counter("micro_batches_total", "Micro-batches that this member computed for committed steps.")
	w.sent = f.counter("ring_sent_bytes_total", "Payload of committed all-reduces that this member sent to its "+
		"right neighbour.")
	w.heals = f.counter("heals_total", "Times that this member's state differed from the majority's and was replaced.")
	w.panics = f.counter("panics_total", "Calls of other processes to this member that panicked.")
	w.generation = f.gauge("generation", "The newest world that this member entered.")
	w.rank = f.gauge("rank", "Place in the present world; -1 in none.")
	w.worldSize = f.gauge("world_size", "Members of the present world; 0 in none.")
	w.step = f.gauge("step", "The last step that this member committed.")
	w.share = f.gauge("micro_batches", "Micro-batches that this member computed in the last committed step.")
	w.skipped = f.gauge("skipped_records", skippedHelp)
	w.otherProtocol = f.gauge("other_protocol_members", otherProtocolHelp)
	w.broken = f.counters("broken_collectives_total", "All-reduces that failed on this member, by how.", "kind",
		"broken", "deadline", "protocol", "relayed", "aborted", "unreachable", "other")
	info := register(f, prometheus.NewGaugeVec(prometheus.GaugeOpts(f.opts("info", "1; names the member.")),
		[]string{"member"}))
	info.WithLabelValues(member).Set(1)
	w.rank.Set(-1)
	return w
}

// Handler serves the metrics.
func (w *Worker) Handler() http.Handler { return handler(w.registry) }

// Entered implements worker.Observer.
func (w *Worker) Entered(world job.World, rank int) {
	w.place = rank
	w.generation.Set(float64(world.Generation))
	w.rank.Set(float64(rank))
	w.worldSize.Set(float64(world.Size()))
}

// Rested implements worker.Observer.
func (w *Worker) Rested(string) {
	w.place = -1
	w.rank.Set(-1)
	w.worldSize.Set(0)
	w.share.Set(0)
}

// Committed implements worker.Observer.
func (w *Worker) Committed(c *proto.Commit, sent int) {
	for phase, nanos := range map[string]int64{"compute": c.ComputeNanos, "reduce": c.ReduceNanos, "wait": c.WaitNanos,
		"update": c.UpdateNanos} {
		w.phases.WithLabelValues(phase).Observe(float64(nanos) / 1e9)
	}
	w.steps.Inc()
	w.step.Set(float64(c.Step))
	w.sent.Add(float64(sent))
	if w.place >= 0 && w.place < len(c.Assignment) {
		w.share.Set(float64(c.Assignment[w.place]))
		w.microBatches.Add(float64(c.Assignment[w.place]))
	}
}

// Saw implements worker.Observer.
func (w *Worker) Saw(skipped, otherProtocol int) {
	w.skipped.Set(float64(skipped))
	w.otherProtocol.Set(float64(otherProtocol))
}

// Broken implements worker.Observer.
func (w *Worker) Broken(kind string) { w.broken.WithLabelValues(kind).Inc() }

// Healed implements worker.Observer.
func (w *Worker) Healed() { w.heals.Inc() }

// Repeated implements worker.Observer.
func (w *Worker) Repeated() { w.repeated.Inc() }

// Panicked implements worker.Observer.
func (w *Worker) Panicked() { w.panics.Inc() }
