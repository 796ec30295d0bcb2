package telemetry

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"evenweave"
	"evenweave/internal/progress"
)

// Causes of a recovery.
const (
	memberLost       = "member_lost"       // the next world lacks a member that did not ask to leave
	collectiveFailed = "collective_failed" // the same members went on
)

const (
	skippedHelp       = "Records in etcd that cannot be used now; the log names them."
	otherProtocolHelp = "Registered members that speak another protocol, which no world can use: start them from " +
		"the same build."
)

// Facts are what the coordinator's metrics show besides its events.
type Facts struct {
	Leading                bool
	Members                int // registered, by the last view
	Skipped, OtherProtocol int // records in etcd that cannot be used; members that speak another protocol
	DurableStep            int64
	DurableAt              time.Time // zero: this process knows no checkpoint
}

// Coordinator turns the events of a job into metrics. Safe for concurrent use.
type Coordinator struct {
	registry *prometheus.Registry

	steps, samples, productive                                                         prometheus.Counter
	step, epoch, loss, accuracy, testAccuracy, testLoss, generation, worldSize, target prometheus.Gauge
	stepSeconds, recovery, checkpoint, evaluation                                      prometheus.Histogram
	metrics, figures                                                                   *prometheus.GaugeVec
	checkpointSize                                                                     prometheus.Gauge
	recoveries, changes, worlds                                                        *prometheus.CounterVec
	warnings, failures, panics, skipped                                                prometheus.Counter

	mu         sync.Mutex
	world      *progress.World
	images     int64
	recovering bool // the present world replaced a broken one and has not committed yet
}

// NewCoordinator returns metrics that count events from now on; each scrape calls facts.
func NewCoordinator(facts func() Facts) *Coordinator {
	c := &Coordinator{registry: newRegistry()}
	f := factory{registry: c.registry}
	c.steps = f.counter("steps_total", "Steps committed while this process led.")
	c.samples = f.counter("samples_total", "Training samples in the committed steps.")
	c.productive = f.counter("productive_seconds_total", "Time spent in steps that were committed. Its rate is the "+
		"goodput: 1 minus the share of recoveries, switches and waits for workers.")
	c.panics = f.counter("panics_total", "Calls of members to this process that panicked.")
	c.skipped = f.counter("steps_skipped_total", "Committed steps that changed no weight, because their sums were not "+
		"finite.")
	c.step = f.gauge("step", "The last committed step.")
	c.target = f.gauge("target_step", "The job's last step.")
	c.epoch = f.gauge("epoch", "The epoch of the last committed step, from 1.")
	c.loss = f.gauge("loss", "Mean training loss of the last committed step.")
	c.accuracy = f.gauge("accuracy_ratio", "Training accuracy of the last committed step.")
	c.metrics = f.gauges("metric", "The task's metrics of the last committed step, by name.", "name")
	c.figures = f.gauges("figure", "What the last evaluation found, by name: on the test set, or on samples held out.",
		"part", "name")
	c.testAccuracy = f.gauge("test_accuracy_ratio", "Accuracy on the test set at the last evaluation.")
	c.testLoss = f.gauge("test_loss", "Loss on the test set at the last evaluation.")
	c.generation = f.gauge("generation", "The number of the present world.")
	c.worldSize = f.gauge("world_size", "Members of the present world.")
	c.stepSeconds = f.histogram("step_seconds", "Time from commit to commit.", stepBuckets)
	c.recovery = f.histogram("recovery_seconds", "Time from the last commit of a world that broke to the first of "+
		"the next.", stepBuckets)
	c.checkpoint = f.histogram("checkpoint_seconds", "Time to fetch, verify and write a checkpoint.", stepBuckets)
	c.evaluation = f.histogram("evaluation_seconds", "Time to evaluate on the test set.", stepBuckets)
	c.checkpointSize = f.gauge("checkpoint_size_bytes", "Size of the newest checkpoint's state.")
	c.recoveries = f.counters("recoveries_total", "Worlds that replaced a broken one, by cause.",
		"cause", memberLost, collectiveFailed)
	c.worlds = f.counters("worlds_total", "Worlds published, by whether their members finished their step first.",
		"kind", "planned", "forced")
	c.changes = f.counters("member_changes_total", "Members that came and went.", "what", progress.Ready, progress.Left,
		progress.Lost, progress.Refused)
	c.warnings = f.counter("warnings_total", "Warnings reported: events that a person may want to act on.")
	c.failures = f.counter("failures_total", "Failures reported: verdicts that ended the job.")
	f.gaugeFunc("leading", "1 while this process leads the job, 0 while it stands by.", func() float64 {
		if facts().Leading {
			return 1
		}
		return 0
	})
	f.gaugeFunc("members", "Registered members, spares too.", func() float64 { return float64(facts().Members) })
	f.gaugeFunc("skipped_records", skippedHelp, func() float64 { return float64(facts().Skipped) })
	f.gaugeFunc("other_protocol_members", otherProtocolHelp, func() float64 { return float64(facts().OtherProtocol) })
	f.gaugeFunc("checkpoint_step", "Step of the newest durable checkpoint.",
		func() float64 { return float64(facts().DurableStep) })
	f.gaugeFunc("checkpoint_timestamp_seconds", "When the newest durable checkpoint was made, seconds since 1970; "+
		"0: none.", func() float64 {
		if at := facts().DurableAt; !at.IsZero() {
			return float64(at.UnixNano()) / 1e9
		}
		return 0
	})
	return c
}

// Panicked counts a call to this process that panicked.
func (c *Coordinator) Panicked() { c.panics.Inc() }

// Handler serves the metrics.
func (c *Coordinator) Handler() http.Handler { return handler(c.registry) }

// Observe implements progress.Observer.
func (c *Coordinator) Observe(r progress.Record) {
	switch e := r.Event.(type) {
	case progress.Start:
		c.target.Set(float64(e.Steps))
		c.step.Set(float64(e.ResumedFrom))
	case progress.Step:
		c.committed(e)
	case progress.World:
		c.entered(e)
	case progress.Checkpoint:
		c.checkpoint.Observe(e.Seconds)
		c.checkpointSize.Set(float64(e.Bytes))
	case progress.Evaluation:
		c.evaluated(e)
		c.evaluation.Observe(e.Seconds)
	case progress.MemberChange:
		c.changes.WithLabelValues(e.What).Inc()
	case progress.Warning:
		c.warnings.Inc()
	case progress.Failure:
		c.failures.Inc()
	}
}

// measured takes the numbers of a step that was applied.
func (c *Coordinator) measured(e progress.Step) {
	c.loss.Set(e.Loss)
	for _, m := range e.Metrics {
		c.metrics.WithLabelValues(m.Name).Set(m.Value)
		if m.Name == "accuracy" {
			c.accuracy.Set(m.Value)
		}
	}
}

func (c *Coordinator) committed(e progress.Step) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps.Inc()
	c.step.Set(float64(e.Step))
	c.epoch.Set(float64(e.Epoch))
	if e.Skipped == "" {
		c.measured(e)
	} else {
		c.skipped.Inc()
	}
	if c.images > 0 && e.Images > c.images {
		c.samples.Add(float64(e.Images - c.images))
	}
	c.images = e.Images
	took := (e.ComputeMS + e.ReduceMS + e.WaitMS + e.UpdateMS) / 1000
	if e.Seconds > 0 {
		c.stepSeconds.Observe(e.Seconds)
		took = min(took, e.Seconds)
	}
	c.productive.Add(took)
	if c.recovering && e.Seconds > 0 {
		c.recovery.Observe(e.Seconds)
	}
	c.recovering = false
}

func (c *Coordinator) evaluated(e progress.Evaluation) {
	for part, figures := range map[string][]evenweave.Figure{"test": e.Figures, "held_out": e.Holdout} {
		for _, f := range figures {
			c.figures.WithLabelValues(part, f.Name).Set(f.Value)
		}
	}
	if accuracy, ok := progress.Find(e.Figures, "accuracy"); ok {
		c.testAccuracy.Set(accuracy)
	}
	if loss, ok := progress.Find(e.Figures, "loss"); ok {
		c.testLoss.Set(loss)
	}
}

func (c *Coordinator) entered(e progress.World) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.world
	c.world = &e
	c.generation.Set(float64(e.Generation))
	c.worldSize.Set(float64(e.Size))
	if before == nil { // the first, or published by an earlier coordinator
		return
	}
	if e.Planned {
		c.worlds.WithLabelValues("planned").Inc()
		return
	}
	c.worlds.WithLabelValues("forced").Inc()
	c.recoveries.WithLabelValues(cause(*before, e)).Inc()
	c.recovering = true
}

// cause returns why an unplanned world replaced another.
func cause(before, after progress.World) string {
	for _, m := range before.Members {
		if !slices.ContainsFunc(after.Members, func(n progress.Member) bool { return n.ID == m.ID }) {
			return memberLost
		}
	}
	return collectiveFailed
}
